<?php
/**
 * The two ways to ask for products: wc/v3 for who runs the shop, wc/store/v1 for everybody.
 */

declare(strict_types=1);

namespace Store\StandIn;

function register_routes(): void
{
    $paging = [
        'page' => ['type' => 'integer', 'default' => 1, 'minimum' => 1],
        'per_page' => ['type' => 'integer', 'default' => 10, 'minimum' => 1, 'maximum' => 100],
        'sku' => ['type' => 'string', 'default' => ''],
    ];
    $may = static fn (): bool => current_user_can('edit_others_posts');
    register_rest_route('wc/v3', '/products', [
        ['methods' => 'GET', 'callback' => list_for_owner(...), 'permission_callback' => $may, 'args' => $paging],
        ['methods' => 'POST', 'callback' => create_product(...), 'permission_callback' => $may, 'args' => [
            'name' => ['type' => 'string', 'required' => true, 'minLength' => 1],
            'slug' => ['type' => 'string', 'default' => ''],
            'type' => ['type' => 'string', 'enum' => ['simple'], 'default' => 'simple'],
            'status' => ['type' => 'string', 'enum' => ['draft', 'pending', 'private', 'publish'], 'default' => 'publish'],
            'sku' => ['type' => 'string', 'default' => ''],
            'regular_price' => ['type' => 'string', 'default' => '', 'pattern' => '^([0-9]+(\.[0-9]+)?)?$'],
            'description' => ['type' => 'string', 'default' => ''],
            'short_description' => ['type' => 'string', 'default' => ''],
            'images' => ['type' => 'array', 'default' => [], 'items' => ['type' => 'object']],
        ]],
    ]);
    register_rest_route('wc/store/v1', '/products', [
        'methods' => 'GET', 'callback' => list_for_everybody(...), 'permission_callback' => '__return_true', 'args' => $paging,
    ]);
}

function list_for_owner(\WP_REST_Request $request): array
{
    $states = ['draft', 'pending', 'private', 'publish'];
    return array_map(told_to_owner(...), find_products($request['per_page'], $request['page'], $request['sku'], $states));
}

function list_for_everybody(\WP_REST_Request $request): array
{
    return array_map(told_to_everybody(...), find_products($request['per_page'], $request['page'], $request['sku']));
}

function create_product(\WP_REST_Request $request): \WP_REST_Response|\WP_Error
{
    if ($request['sku'] !== '' && find_products(1, 1, $request['sku'], ['any']) !== []) {
        return new \WP_Error('product_invalid_sku', 'Invalid or duplicated SKU.', ['status' => 400]);
    }
    $id = wp_insert_post(wp_slash([
        'post_type' => POST_TYPE,
        'post_status' => $request['status'],
        'post_title' => $request['name'],
        'post_name' => $request['slug'],
        'post_content' => $request['description'],
        'post_excerpt' => $request['short_description'],
        'meta_input' => [
            '_sku' => $request['sku'],
            '_regular_price' => $request['regular_price'],
            '_price' => $request['regular_price'],
            '_stock_status' => 'instock',
        ],
    ]), true);
    if ($id instanceof \WP_Error) {
        return $id;
    }
    $picture = (int) ($request['images'][0]['id'] ?? 0);
    if ($picture > 0) {
        update_post_meta($id, '_thumbnail_id', $picture);
    }
    return new \WP_REST_Response(told_to_owner(get_post($id)), 201);
}

function told_to_owner(\WP_Post $product): array
{
    return told($product) + [
        'status' => $product->post_status,
        'regular_price' => price_of($product),
        'price' => price_of($product),
        'stock_status' => 'instock',
    ];
}

function told_to_everybody(\WP_Post $product): array
{
    $minor = price_of($product) === '' ? '0' : (string) (int) round((float) price_of($product) * 100);
    return told($product) + [
        'is_in_stock' => true,
        // There is no cart here.
        'is_purchasable' => false,
        'prices' => [
            'price' => $minor,
            'regular_price' => $minor,
            'sale_price' => $minor,
            'currency_code' => currency(),
            'currency_symbol' => currency_symbol(),
            'currency_minor_unit' => 2,
            'currency_prefix' => currency_symbol(),
            'currency_suffix' => '',
        ],
    ];
}

/** What both ways say, in the same words. */
function told(\WP_Post $product): array
{
    $picture = (int) get_post_meta($product->ID, '_thumbnail_id', true);
    return [
        'id' => $product->ID,
        'name' => $product->post_title,
        'slug' => $product->post_name,
        'type' => 'simple',
        'permalink' => get_permalink($product),
        'sku' => (string) get_post_meta($product->ID, '_sku', true),
        'description' => wpautop($product->post_content),
        'short_description' => wpautop($product->post_excerpt),
        'images' => $picture === 0 ? [] : [[
            'id' => $picture,
            'src' => (string) wp_get_attachment_url($picture),
            'alt' => (string) get_post_meta($picture, '_wp_attachment_image_alt', true),
        ]],
    ];
}
