<?php
/**
 * Plugin Name: The platform's part of every shop
 * Description: Says loudly when this is a stand-in, keeps WordPress from looking for updates that come with the image, and
 * from telling strangers who may sign in.
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

// Who may sign in is nobody's business but theirs: no list of users, no pages of authors, no word on which part was wrong.
add_filter('rest_endpoints', static function (array $routes): array {
    if (is_user_logged_in()) {
        return $routes;
    }
    $is_public = static fn (string $route): bool => !str_starts_with($route, '/wp/v2/users');
    return array_filter($routes, $is_public, ARRAY_FILTER_USE_KEY);
});
add_filter('wp_sitemaps_add_provider', static function (mixed $provider, string $name): mixed {
    return $name === 'users' ? false : $provider;
}, 10, 2);
add_action('template_redirect', static function (): void {
    if (is_author() || isset($_GET['author'])) {
        global $wp_query;
        $wp_query->set_404();
        status_header(404);
        nocache_headers();
        remove_action('template_redirect', 'redirect_canonical');
    }
}, 1);
add_filter('login_errors', static fn (): string => 'The name or the password is wrong.');
