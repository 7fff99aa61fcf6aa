<?php
/**
 * Demo products, made through the shop's own API, the one that every version of the plugin has.
 */

declare(strict_types=1);

namespace Store;

/** Makes the file's products that are not there yet, known by their article numbers. */
function make_products(string $file): string
{
    $administrator = get_user_by('login', (string) getenv('ADMIN_USER'));
    if ($administrator === false) {
        throw new \RuntimeException('there is no user ' . getenv('ADMIN_USER') . ' any more');
    }
    wp_set_current_user($administrator->ID);
    $products = json_decode((string) file_get_contents($file), true, 8, JSON_THROW_ON_ERROR);
    foreach ($products as $product) {
        if (ask('GET', '/wc/v3/products', ['sku' => $product['sku']]) !== []) {
            continue;
        }
        ask('POST', '/wc/v3/products', [
            'name' => $product['name'],
            'slug' => $product['slug'],
            'type' => 'simple',
            'status' => 'publish',
            'sku' => $product['sku'],
            'regular_price' => $product['price'],
            'description' => $product['description'],
            'short_description' => $product['short'],
            'images' => [['id' => picture($product['slug'], $product['name'])]],
        ]);
    }
    return count($products) . ' of them';
}

/** @return array<mixed> The answer's data. */
function ask(string $method, string $route, array $parameters): array
{
    $request = new \WP_REST_Request($method, $route);
    foreach ($parameters as $name => $value) {
        $request->set_param($name, $value);
    }
    $response = rest_do_request($request);
    if ($response->is_error()) {
        $error = $response->as_error();
        throw new \RuntimeException("$method $route: " . $error->get_error_message());
    }
    return rest_get_server()->response_to_data($response, false);
}

/** @return int The picture's number in the media library. Its file is in the image, beside the uploads. */
function picture(string $slug, string $name): int
{
    $there = get_page_by_path("demo-$slug", OBJECT, 'attachment');
    if ($there !== null) {
        return $there->ID;
    }
    $file = "store-demo/$slug.svg";
    $id = no_error(wp_insert_attachment([
        'post_title' => $name,
        'post_name' => "demo-$slug",
        'post_mime_type' => 'image/svg+xml',
        'post_status' => 'inherit',
    ], $file, 0, true), "the picture of $name");
    update_post_meta($id, '_wp_attachment_image_alt', $name);
    wp_update_attachment_metadata($id, ['width' => 800, 'height' => 800, 'file' => $file, 'sizes' => []]);
    return $id;
}
