<?php
/**
 * What a visitor sees: a shelf of products, by a short code and at /shop/, and a page for each product.
 */

declare(strict_types=1);

namespace Store\StandIn;

function register_pages(): void
{
    add_shortcode('products', static function (mixed $attributes): string {
        $wanted = shortcode_atts(['limit' => '12', 'columns' => '4'], (array) $attributes);
        return shelf(find_products(max(1, (int) $wanted['limit'])), max(1, (int) $wanted['columns']));
    });
    add_action('wp_enqueue_scripts', static function (): void {
        wp_enqueue_style('store-stand-in', plugins_url('shop.css', __FILE__), [], VERSION);
    });
    // After the theme has chosen: a theme of blocks has templates for posts, and would show a product as one.
    add_filter('template_include', static function (string $chosen): string {
        return is_post_type_archive(POST_TYPE) || is_singular(POST_TYPE) ? __DIR__ . '/template.php' : $chosen;
    }, 99);
}

/** @param list<\WP_Post> $products */
function shelf(array $products, int $columns): string
{
    if ($products === []) {
        return '<p class="stand-in-empty">There is nothing on the shelf yet.</p>';
    }
    $items = array_map(static fn (\WP_Post $product): string => sprintf(
        '<li><a href="%s">%s<span class="stand-in-name">%s</span></a><span class="stand-in-price">%s</span></li>',
        esc_url((string) get_permalink($product)),
        get_the_post_thumbnail($product, 'full', ['loading' => 'lazy']),
        esc_html(get_the_title($product)),
        shown_price($product),
    ), $products);
    return sprintf('<ul class="stand-in-shelf" style="--columns:%d">%s</ul>', min($columns, 6), implode('', $items));
}

function product_page(\WP_Post $product): string
{
    return sprintf(
        '<article class="stand-in-product"><div>%s</div><div><h1>%s</h1><p class="stand-in-price">%s</p>%s'
            . '<p class="stand-in-note">This shop runs a stand-in for WooCommerce: products can be seen, not bought.</p>'
            . '</div></article>',
        get_the_post_thumbnail($product, 'full'),
        esc_html(get_the_title($product)),
        shown_price($product),
        // Through the theme's filters, as every text of a page.
        apply_filters('the_content', $product->post_content),
    );
}

/** @return string What stands between the theme's head and foot. */
function page_body(): string
{
    if (is_singular(POST_TYPE)) {
        return product_page(get_queried_object());
    }
    return '<h1>Shop</h1>' . shelf(find_products(12, max(1, (int) get_query_var('paged'))), 4);
}

/** One of the theme's parts, such as its header. */
function theme_part(string $name): string
{
    ob_start();
    block_template_part($name);
    return (string) ob_get_clean();
}
