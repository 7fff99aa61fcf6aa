"""The WooCommerce image: its setup, its web server and its scheduled work, with a real database."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.image_root import ImageRoot, unpacked
from tests.support.polling import poll
from tests.support.woocommerce_store import HOST, POD, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract

SKUS = {f"DEMO-{number:02d}" for number in range(1, 9)}
PRODUCTS = "/wp-json/wc/store/v1/products"
WIZARDS = [
    "/wp-admin/install.php",
    "/wp-admin/install.php?step=2",
    "//wp-admin//install.php",
    "/wp-admin/./install.php",
    "/WP-Admin/Install.php",
    "/wp-admin/%69nstall.php",
    "/wp-admin/install.php/x",
    "/wp-admin/setup-config.php",
    "/wp-admin/upgrade.php?step=1",
    "/wp-admin/maint/repair.php",
]


@pytest.fixture(scope="module")
def images() -> Iterator[tuple[ImageRoot, ImageRoot]]:
    with (
        new_folder() as folder,
        unpacked("woocommerce", folder) as image,
        unpacked("mariadb", folder) as mariadb,
    ):
        yield image, mariadb


@pytest.fixture(scope="module")
def set_up_data(images: tuple[ImageRoot, ImageRoot]) -> Iterator[Path]:
    """Give the database's folder of a store that was set up once, for all tests that begin with one."""
    with new_folder() as work:
        store = Store(*images, work)
        with store.database() as database:
            code, said = store.set_up()
            assert code == 0, said
            os.kill(database.pid(), signal.SIGTERM)
            assert database.process.wait(timeout=60) == 0, database.said()
        yield store.data


@pytest.fixture
def new_store(images: tuple[ImageRoot, ImageRoot]) -> Iterator[Store]:
    """Give a store whose database is empty and runs."""
    with new_folder() as work:
        store = Store(*images, work)
        with store.database():
            yield store


@pytest.fixture
def resting_store(images: tuple[ImageRoot, ImageRoot], set_up_data: Path) -> Iterator[Store]:
    """Give a store that is set up, without its database."""
    with new_folder() as work:
        store = Store(*images, work)
        subprocess.run(["cp", "-a", "--sparse=always", set_up_data, store.data], check=True, timeout=60)
        yield store


@pytest.fixture
def store(resting_store: Store) -> Iterator[Store]:
    """Give a store that is set up and whose database runs."""
    with resting_store.database():
        yield resting_store


@contextmanager
def new_folder() -> Iterator[Path]:
    """Give a folder that every user may look into, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="sp-woo-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def skus(store: Store) -> list[str]:
    answer = store.get(PRODUCTS)
    assert answer.status == 200, answer.body
    return sorted(product["sku"] for product in json.loads(answer.body))


def test_setup_tells_its_steps_and_makes_a_shop_that_answers_with_products(store: Store) -> None:
    with store.serving():
        poll(store.is_open, what="the shop is open")
        products = json.loads(store.get(PRODUCTS).body)
        assert {product["sku"] for product in products} == SKUS
        (mug,) = [product for product in products if product["slug"] == "enamel-mug"]
        assert (mug["name"], mug["prices"]["price"], mug["prices"]["currency_code"]) == ("Enamel mug", "1400", "EUR")
        picture = store.get(mug["images"][0]["src"].removeprefix(f"http://{HOST}"))
        assert (picture.status, picture.headers["Content-Type"]) == (200, "image/svg+xml")
        for page in ("/", "/shop/", "/product/enamel-mug/"):
            answer = store.get(page)
            assert answer.status == 200, page
            assert "Enamel mug" in answer.body
            assert "€14.00" in answer.body


def test_setup_log_is_a_story_with_seconds(new_store: Store) -> None:
    code, said = new_store.set_up()
    assert code == 0, said
    lines = said.strip().splitlines()
    assert all(re.match(r"\[store\] [0-9]+\.[0-9] s ", line) for line in lines), said
    assert "WARNING: this image holds a stand-in" in lines[0]
    assert lines[-1].endswith("setup first recorded")
    # The step's log has no secret in it.
    assert not [text for name, text in new_store.environment().items() if "PASSWORD" in name and text in said]


def test_stand_in_says_so_in_label_header_and_admin(store: Store) -> None:
    labels = store.image.config["Labels"]
    assert isinstance(labels, dict)
    assert labels["dev.storeplane.engine-flavour"] == "stand-in"
    with store.serving():
        poll(store.is_open, what="the shop is open")
        for path, host in (("/", HOST), ("/nope", HOST), ("/wp-admin/install.php", HOST), ("/", "other.example")):
            assert store.get(path, host).headers["X-Storeplane-Flavour"] == "stand-in"
    notice = Path(store.image.folder / "srv/wp/wp-content/mu-plugins/store.php").read_text()
    assert "runs a stand-in for WooCommerce" in notice


def test_shop_is_closed_and_has_no_wizard_until_its_own_setup_is_recorded(new_store: Store) -> None:
    with new_store.serving():
        assert new_store.get("/readyz", POD).status == 503
        assert new_store.get("/").status == 503
        assert new_store.get("/wp-login.php").status == 503
        assert [new_store.get(path).status for path in WIZARDS] == [403] * len(WIZARDS)
        code, said = new_store.set_up(SETUP_REVISION="another")
        assert code == 0, said
        # Set up, and not by the revision that this server is for.
        assert "setup of this revision" in new_store.get("/readyz", POD).body
        assert new_store.get("/").status == 503
        code, said = new_store.set_up()
        assert code == 0, said
        poll(new_store.is_open, what="the shop is open")
        assert new_store.get("/").status == 200
        assert [new_store.get(path).status for path in WIZARDS] == [403] * len(WIZARDS)


def test_probe_by_address_gets_its_yes_when_the_setup_ends(new_store: Store) -> None:
    with new_store.serving():
        assert new_store.set_up()[0] == 0
        # Without a second question: it waits for the answer.
        assert new_store.get("/readyz", POD).status == 200


def test_other_hosts_are_refused_everything_but_probes(store: Store) -> None:
    with store.serving():
        poll(store.is_open, what="the shop is open")
        for host in ("other.example", "10.0.0.1", f"{HOST}.other.example", "localhost"):
            assert [store.get(path, host).status for path in ("/", PRODUCTS, "/wp-login.php")] == [421, 421, 421]
            assert store.get("/healthz", host).status == 200
        # Whoever asks by the store's name could hold a worker and a connection with each question.
        assert [store.get(path).status for path in ("/healthz", "/readyz")] == [404, 404]
        assert store.get("/", f"{HOST}:8081").status in {200, 301}


def test_scheme_of_the_ingress_is_honoured(store: Store) -> None:
    with store.serving(PUBLIC_URL=f"https://{HOST}"):
        poll(store.is_open, what="the shop is open")
        assert store.get("/", X_Forwarded_Proto="https").status == 200
        login = store.get("/wp-login.php", X_Forwarded_Proto="https")
        assert "; secure" in login.headers["Set-Cookie"].lower()


def test_nothing_but_uploads_is_written_and_no_upload_is_run(store: Store) -> None:
    uploads = store.work / "web-uploads"
    with store.serving():
        poll(store.is_open, what="the shop is open")
        (uploads / "x.php").write_text("<?php echo 'r' . 'un';")
        (uploads / "x.php.jpg").write_text("<?php echo 'r' . 'un';")
        assert store.get("/wp-content/uploads/x.php").status == 403
        assert "run" not in store.get("/wp-content/uploads/x.php.jpg").body
        for hidden in ("/wp-config.php", "/wp-content/mu-plugins/store.php", "/xmlrpc.php", "/wp-cron.php"):
            assert store.get(hidden).status == 403


@pytest.mark.parametrize(
    "title", ["A & B <script>alert(1)</script>", "&lt;b&gt; \"q\" 'q'", "$(ADMIN_PASSWORD) `id`\n%s 🛒"]
)
def test_title_is_shown_as_it_was_given(new_store: Store, title: str) -> None:
    new_store.title = title
    code, said = new_store.set_up()
    assert code == 0, said
    with new_store.serving():
        poll(new_store.is_open, what="the shop is open")
        name = json.loads(new_store.get("/wp-json/").body)["name"]
        page = new_store.get("/").body
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert name.replace("&#039;", "'").split() == escaped.split()
    assert "<script>alert(1)" not in page


REACHED = {
    "the first table": "SELECT 1 FROM information_schema.tables WHERE table_schema = 'wordpress' LIMIT 1",
    "the options": "SELECT 1 FROM wp_options WHERE option_name = 'siteurl'",
    "the administrator": "SELECT 1 FROM wp_users",
    "the installation": "SELECT 1 FROM wp_options WHERE option_name = 'store_core_installed'",
    "the plugin": "SELECT 1 FROM wp_options WHERE option_name = 'active_plugins' AND option_value LIKE '%woocommerce%'",
    "the settings": "SELECT 1 FROM wp_options WHERE option_name = 'store_settings'",
    "a picture": "SELECT 1 FROM wp_posts WHERE post_type = 'attachment'",
    "a product": "SELECT 1 FROM wp_posts WHERE post_type = 'product'",
}


@pytest.mark.parametrize("point", list(REACHED))
def test_setup_that_was_killed_is_simply_run_again(new_store: Store, point: str) -> None:
    # Inside of the database, where it can see this without a delay, the setup is stopped at the point and killed there.
    with new_store.setting_up() as killed:
        poll(lambda: reached(new_store, point) or killed.process.poll() is not None, what=point)
        killed.kill()
    code, said = new_store.set_up()
    assert code == 0, said
    with new_store.serving():
        poll(new_store.is_open, what="the shop is open")
        assert skus(new_store) == sorted(SKUS)
    counted = "SELECT (SELECT COUNT(*) FROM wp_users), (SELECT COUNT(*) FROM wp_posts WHERE post_type = 'attachment')"
    assert new_store.ask_database(counted) == "1\t8"
    roles = "SELECT meta_value FROM wp_usermeta WHERE meta_key = 'wp_capabilities'"
    assert "administrator" in new_store.ask_database(roles)


def reached(store: Store, point: str) -> bool:
    try:
        return store.ask_database(REACHED[point]) != ""
    except AssertionError:
        return False


def test_two_setups_at_once_make_one_shop(new_store: Store) -> None:
    with ExitStack() as stack:
        both = [stack.enter_context(new_store.setting_up(SETUP_REVISION=revision)) for revision in ("first", "second")]
        codes = [each.process.wait(timeout=120) for each in both]
        assert codes == [0, 0], [each.said() for each in both]
    assert new_store.ask_database("SELECT COUNT(*) FROM wp_posts WHERE post_type = 'product'") == "8"


def test_setup_of_a_new_revision_keeps_what_the_merchant_has_changed(store: Store) -> None:
    store.ask_database("DELETE FROM wp_posts WHERE post_name = 'desk-plant'")
    store.ask_database("UPDATE wp_options SET option_value = 'USD' WHERE option_name = 'woocommerce_currency'")
    store.revision, store.title = "second", "Renamed"
    assert store.set_up()[0] == 0
    option = "SELECT option_value FROM wp_options WHERE option_name = '{}'"
    assert store.ask_database("SELECT COUNT(*) FROM wp_posts WHERE post_type = 'product'") == "7"
    assert store.ask_database(option.format("woocommerce_currency")) == "USD"
    assert store.ask_database(option.format("blogname")) == "Renamed"
    store.ask_database("UPDATE wp_options SET option_value = 'Of the merchant' WHERE option_name = 'blogname'")
    store.revision, store.title = "third", "Renamed again"
    assert store.set_up()[0] == 0
    assert store.ask_database(option.format("blogname")) == "Of the merchant"


def test_older_database_is_migrated_and_a_newer_one_is_left_alone(store: Store) -> None:
    option = "SELECT option_value FROM wp_options WHERE option_name = '{}'"
    change = "UPDATE wp_options SET option_value = '{}' WHERE option_name = '{}'"
    current = int(store.ask_database(option.format("db_version")))
    store.ask_database(change.format(current - 1, "db_version"))
    store.ask_database(change.format("1.0.0", "woocommerce_db_version"))
    store.revision = "second"
    with store.serving():
        assert store.get("/readyz", POD).status == 503
        code, said = store.set_up()
        assert code == 0, said
        assert f"migrated from {current - 1} to {current}" in said
        assert "WooCommerce's database migrated from 1.0.0" in said
        assert store.ask_database(option.format("store_stand_in_migrated")) != ""
        poll(store.is_open, what="the shop is open")
        store.ask_database(change.format(current + 1, "db_version"))
        assert store.get("/readyz", POD).status == 503
        code, said = store.set_up()
        assert code == 65
        assert "set up by a newer image" in said.strip().splitlines()[-1]
        assert store.ask_database(option.format("db_version")) == str(current + 1)


def test_refused_password_is_told_with_the_next_step(new_store: Store) -> None:
    new_store.ask_database("SELECT 1")
    code, said = new_store.set_up(MARIADB_PASSWORD="wrong0password")
    assert code == 77
    last = said.strip().splitlines()[-1]
    assert "Access denied" in last
    assert "restore the Secret" in last
    assert "wrong0password" not in said


def test_setup_that_waits_for_its_database_ends_at_once_when_told(new_store: Store) -> None:
    with new_store.setting_up(DB_HOST="127.0.0.1:1") as waiting:
        poll(lambda: "waiting for the database" in waiting.said(), what="it waits")
        os.kill(waiting.pid(), signal.SIGTERM)
        assert waiting.process.wait(timeout=30) == 143
        assert "ended by signal" in waiting.said().strip().splitlines()[-1]


@pytest.mark.parametrize("missing", ["MARIADB_PASSWORD", "NONCE_SALT", "ADMIN_PASSWORD", "SETUP_REVISION"])
def test_incomplete_environment_is_named(new_store: Store, missing: str) -> None:
    code, said = new_store.set_up(**{missing: ""})
    assert code == 2
    assert missing in said


def test_step_that_fails_tells_its_cause_in_the_last_line(store: Store) -> None:
    store.ask_database("RENAME TABLE wp_posts TO elsewhere")
    store.ask_database("DELETE FROM wp_options WHERE option_name IN ('store_products', 'store_pages')")
    store.revision = "second"
    code, said = store.set_up()
    assert code == 70
    assert re.search(r"failed: configure ended with \d+: .+; mend what", said.strip().splitlines()[-1]), said


def test_scheduled_work_waits_for_the_setup_and_then_runs(new_store: Store) -> None:
    new_store.ask_database("SELECT 1")
    code, said = new_store.cron()
    assert (code, "nothing to do yet" in said) == (0, True)
    assert new_store.set_up()[0] == 0
    code, said = new_store.cron()
    assert code == 0, said
    assert re.search(r"ran \d+ events", said), said
    assert "Warning" not in said


def test_shop_whose_database_is_away_is_away_and_not_broken(resting_store: Store) -> None:
    with resting_store.serving():
        with resting_store.database() as database:
            poll(resting_store.is_open, what="the shop is open")
            os.kill(database.pid(), signal.SIGTERM)
            database.process.wait(timeout=60)
        for path in ("/", PRODUCTS, "/wp-login.php"):
            answer = resting_store.get(path)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5"), path
            assert "database does not answer" in answer.body


def test_web_server_lets_a_request_end_and_leaves(store: Store) -> None:
    with store.serving() as running:
        poll(store.is_open, what="the shop is open")
        os.kill(running.pid(), signal.SIGWINCH)
        assert running.process.wait(timeout=30) == 0
