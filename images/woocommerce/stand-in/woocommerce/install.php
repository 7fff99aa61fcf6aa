<?php
/**
 * What stays in the database beside products: options, a page, and a version. Named as callers know it.
 */

declare(strict_types=1);

use const Store\StandIn\VERSION;

final class WC_Install
{
    public static function install(): void
    {
        add_option('woocommerce_currency', 'USD');
        add_option('woocommerce_default_country', 'US:CA');
        add_option('woocommerce_coming_soon', 'yes');
        if (get_option('woocommerce_db_version') === false) {
            self::update_db_version();
        }
        update_option('woocommerce_version', VERSION);
    }

    public static function create_pages(): void
    {
        $there = get_page_by_path('shop');
        $id = $there?->ID ?? wp_insert_post([
            'post_type' => 'page',
            'post_status' => 'publish',
            'post_name' => 'shop',
            'post_title' => 'Shop',
        ]);
        update_option('woocommerce_shop_page_id', $id);
    }

    public static function needs_db_update(): bool
    {
        return version_compare((string) get_option('woocommerce_db_version', '0'), VERSION, '<');
    }

    /** @return array<string, list<callable>> What each version wants done, oldest first. */
    public static function get_db_update_callbacks(): array
    {
        return ['1.1.0' => [static fn (): bool => !update_option('store_stand_in_migrated', gmdate('c'))]];
    }

    public static function update_db_version(?string $version = null): void
    {
        update_option('woocommerce_db_version', $version ?? VERSION);
    }
}
