<?php
/**
 * Plugin Name: WooCommerce (stand-in)
 * Description: Takes WooCommerce's place where it cannot be fetched: the same file, options and routes, and no cart.
 * Version: 1.1.0
 * License: Apache-2.0
 *
 * Written from WooCommerce's documented interface, for developing and testing what stands around it. It has products, the
 * two routes that list them, the pages that show them, and a database version with something to migrate.
 */

declare(strict_types=1);

namespace Store\StandIn;

defined('ABSPATH') || exit;

const VERSION = '1.1.0';
const POST_TYPE = 'product';

require __DIR__ . '/install.php';
require __DIR__ . '/products.php';
require __DIR__ . '/routes.php';
require __DIR__ . '/pages.php';

register_activation_hook(__FILE__, [\WC_Install::class, 'install']);
add_action('init', register_products(...));
add_action('rest_api_init', register_routes(...));
add_action('init', register_pages(...));
