<?php
/**
 * The plugin is active. A process of its own: what it registers while WordPress loads is there from the next one on.
 */

declare(strict_types=1);

namespace Store;

require __DIR__ . '/begin.php';

const PLUGIN = 'woocommerce/woocommerce.php';

require '/srv/wp/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

if (!is_plugin_active(PLUGIN)) {
    $refused = activate_plugin(PLUGIN);
    if (is_wp_error($refused)) {
        throw new \RuntimeException('WooCommerce was not activated: ' . $refused->get_error_message());
    }
    $version = get_plugin_data(WP_PLUGIN_DIR . '/' . PLUGIN, false, false);
    say("{$version['Name']} {$version['Version']} activated");
}
done();
