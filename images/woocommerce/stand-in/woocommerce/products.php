<?php
/**
 * Products: a type of post with a price, an article number and a picture.
 */

declare(strict_types=1);

namespace Store\StandIn;

function register_products(): void
{
    register_post_type(POST_TYPE, [
        'labels' => ['name' => 'Products', 'singular_name' => 'Product'],
        'public' => true,
        'has_archive' => 'shop',
        'rewrite' => ['slug' => 'product', 'with_front' => false],
        'supports' => ['title', 'editor', 'excerpt', 'thumbnail'],
        'menu_icon' => 'dashicons-cart',
        // The editor's own routes; the shop's are in routes.php.
        'show_in_rest' => true,
        'rest_base' => 'stand-in-products',
    ]);
}

/** @return list<\WP_Post> The newest first, as a shop lists them; published only unless asked. */
function find_products(int $limit, int $page = 1, string $sku = '', array $states = ['publish']): array
{
    $wanted = [
        'post_type' => POST_TYPE,
        'post_status' => $states,
        'posts_per_page' => $limit,
        'paged' => $page,
        'orderby' => ['menu_order' => 'ASC', 'date' => 'DESC', 'ID' => 'DESC'],
        'no_found_rows' => true,
    ];
    if ($sku !== '') {
        $wanted += ['meta_key' => '_sku', 'meta_value' => $sku];
    }
    return array_values((new \WP_Query($wanted))->posts);
}

function price_of(\WP_Post $product): string
{
    return (string) get_post_meta($product->ID, '_price', true);
}

/** @return string For people, in the shop's currency; escaped. */
function shown_price(\WP_Post $product): string
{
    $price = price_of($product);
    return $price === '' ? '' : esc_html(currency_symbol() . number_format_i18n((float) $price, 2));
}

function currency(): string
{
    return (string) get_option('woocommerce_currency', 'USD');
}

function currency_symbol(): string
{
    return ['EUR' => '€', 'USD' => '$', 'GBP' => '£'][currency()] ?? currency() . ' ';
}
