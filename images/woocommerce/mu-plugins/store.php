<?php
/**
 * Plugin Name: The platform's part of every shop
 * Description: Says loudly when this is a stand-in, and keeps WordPress from looking for updates that come with the image.
 */

declare(strict_types=1);

namespace Store;

const ANNOUNCED_BY = 'wordpress.org';

if (trim((string) file_get_contents('/srv/store/flavour')) !== 'official') {
    add_action('admin_notices', static function (): void {
        echo '<div class="notice notice-warning"><p><strong>This shop runs a stand-in for WooCommerce.</strong> '
            . 'It shows products and sells nothing. A real shop needs the image that is built from the releases.</p></div>';
    });
}

// New versions are new images. Asking for them would only fail, after seconds, in a pod that may not reach the internet.
remove_action('init', 'wp_schedule_update_checks');
add_filter('pre_http_request', static function (mixed $answer, array $arguments, string $url): mixed {
    $host = (string) parse_url($url, PHP_URL_HOST);
    if ($host === ANNOUNCED_BY || str_ends_with($host, '.' . ANNOUNCED_BY)) {
        return new \WP_Error('store_updates', 'Updates come with the image.');
    }
    return $answer;
}, 10, 3);

// Every browser has emoji of its own; WordPress would let each visitor fetch pictures of them from elsewhere.
remove_action('wp_head', 'print_emoji_detection_script', 7);
remove_action('wp_enqueue_scripts', 'wp_enqueue_emoji_styles');
remove_action('admin_print_scripts', 'print_emoji_detection_script');
remove_action('admin_enqueue_scripts', 'wp_enqueue_emoji_styles');
add_filter('emoji_svg_url', '__return_false');
