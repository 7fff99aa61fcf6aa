<?php
/**
 * The shop's settings, pages and demo products, once; its database at the plugin's version; and the record, last.
 *
 * What was done once is noted, because from then on it is the merchant's: a product that they deleted stays deleted.
 */

declare(strict_types=1);

namespace Store;

require __DIR__ . '/begin.php';
require '/srv/wp/wp-load.php';
require __DIR__ . '/products.php';

if (!class_exists('WC_Install')) {
    throw new \RuntimeException('WooCommerce is active but did not load');
}
once('store_settings', settings(...), 'settings');
once('store_pages', pages(...), 'pages');
migrate();
once('store_products', static fn () => make_products('/srv/demo/products.json'), 'demo products');
rename_shop();
// Made again by the first request, which knows every address that the plugin has added.
update_option('rewrite_rules', '');
no_error(record((string) getenv('SETUP_REVISION')), 'the record of this setup');
done();

/** @param callable(): string $act Returns what it has made, for the log. */
function once(string $option, callable $act, string $what): void
{
    if (get_option($option)) {
        return;
    }
    $made = $act();
    no_error(update_option($option, gmdate('c'), false), $what);
    say("$what: $made");
}

function settings(): string
{
    $settings = [
        'permalink_structure' => '/%postname%/',
        'blogdescription' => '',
        'default_comment_status' => 'closed',
        'default_ping_status' => 'closed',
        'woocommerce_default_country' => 'DE',
        'woocommerce_currency' => 'EUR',
        'woocommerce_currency_pos' => 'left',
        // Recent versions hide a new shop behind a page that says so.
        'woocommerce_coming_soon' => 'no',
        'woocommerce_store_pages_only' => 'no',
        'woocommerce_allow_tracking' => 'no',
        'woocommerce_show_marketplace_suggestions' => 'no',
        'woocommerce_onboarding_profile' => ['skipped' => true],
        // Something to pay with that needs no contract.
        'woocommerce_cod_settings' => ['enabled' => 'yes', 'title' => 'Cash on delivery'],
    ];
    foreach ($settings as $name => $value) {
        update_option($name, $value);
    }
    return 'prices in EUR';
}

function pages(): string
{
    \WC_Install::create_pages();
    $home = get_page_by_path('home');
    $id = $home?->ID ?? no_error(wp_insert_post([
        'post_type' => 'page',
        'post_status' => 'publish',
        'post_name' => 'home',
        'post_title' => 'Welcome',
        'post_content' => "<!-- wp:shortcode -->\n[products limit=\"8\" columns=\"4\"]\n<!-- /wp:shortcode -->",
    ], true), 'the front page');
    update_option('show_on_front', 'page');
    update_option('page_on_front', $id);
    return "front page at /, shop at /shop/";
}

/** Runs what a newer plugin wants done in the database, as its own command line does. */
function migrate(): void
{
    if (!\WC_Install::needs_db_update()) {
        return;
    }
    $from = (string) get_option('woocommerce_db_version');
    if (defined('WC_ABSPATH') && is_file(WC_ABSPATH . 'includes/wc-update-functions.php')) {
        require_once WC_ABSPATH . 'includes/wc-update-functions.php';
    }
    $count = 0;
    foreach (\WC_Install::get_db_update_callbacks() as $version => $callbacks) {
        if (version_compare($from, (string) $version, '>=')) {
            continue;
        }
        foreach ((array) $callbacks as $callback) {
            // It answers true for as long as it wants to be called again.
            while ($callback() === true) {
                continue;
            }
            $count++;
        }
    }
    \WC_Install::update_db_version();
    say("WooCommerce's database migrated from $from, $count steps");
}

/** The store's name, for as long as it is the one that we gave it. */
function rename_shop(): void
{
    $title = htmlspecialchars((string) getenv('TITLE'), ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
    if (get_option('store_title') === $title) {
        return;
    }
    if (get_option('blogname') === sanitize_option('blogname', (string) get_option('store_title'))) {
        update_option('blogname', $title);
        say('the shop has its new name');
    }
    update_option('store_title', $title, false);
}

/** The last thing of a setup: readyz.php waits for exactly this value. */
function record(string $revision): bool
{
    return get_option('store_setup_revision') === $revision || update_option('store_setup_revision', $revision, false);
}
