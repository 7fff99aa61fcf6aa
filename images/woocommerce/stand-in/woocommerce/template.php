<?php
/**
 * A page of the shop in the theme's frame. Everything is rendered before the head, which prints what blocks have asked for.
 */

declare(strict_types=1);

namespace Store\StandIn;

defined('ABSPATH') || exit;

$header = theme_part('header');
$body = page_body();
$footer = theme_part('footer');
?><!DOCTYPE html>
<html <?php language_attributes(); ?>>
<head>
<meta charset="<?php bloginfo('charset'); ?>">
<meta name="viewport" content="width=device-width, initial-scale=1">
<?php wp_head(); ?>
</head>
<body <?php body_class(); ?>>
<?php wp_body_open(); ?>
<div class="wp-site-blocks">
<header class="wp-block-template-part"><?= $header ?></header>
<main class="stand-in-main has-global-padding"><?= $body ?></main>
<footer class="wp-block-template-part"><?= $footer ?></footer>
</div>
<?php wp_footer(); ?>
</body>
</html>
