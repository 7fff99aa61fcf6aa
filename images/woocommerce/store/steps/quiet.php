<?php
/**
 * Functions that WordPress' installation declares itself unless they are there: a shop begins without the blog's first
 * post, comment and page, and writes to nobody.
 */

declare(strict_types=1);

function wp_new_blog_notification(): void
{
}

function wp_install_defaults(): void
{
    // The category is what WordPress cannot be without.
    if (term_exists('uncategorized', 'category') === null) {
        wp_insert_term('Uncategorized', 'category', ['slug' => 'uncategorized']);
    }
    update_option('default_category', (int) get_term_by('slug', 'uncategorized', 'category')->term_id);
}
