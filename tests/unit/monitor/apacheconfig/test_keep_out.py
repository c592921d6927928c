"""`lbctl apache-config --keep-out`."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.apacheconfig.compose import Options, Refused, compose

TOML = '[application]\napp = "shop:application"\nsession_cookie = "sid"\n'


def written(folder: Path, mount: str, *paths: str) -> str:
    config = folder / "shop.toml"
    config.write_text(TOML)
    return compose(Options(config, slots=1, mount=mount, keep_out=list(paths), unchecked=True)).text


def test_paths_below_the_mount_are_kept_out(tmp_path: Path) -> None:
    assert r'RewriteRule "^(?!/shop/a\ b(?:/|$)|/shop/c(?:/|$))/shop(?:/|$)" ' in written(
        tmp_path, "/shop", "/shop/a b/", "/shop/c"
    )
    assert 'RewriteRule "^(?!/static(?:/|$))" ' in written(tmp_path, "", "/static")
    assert written(tmp_path, "", "/a", "/b", "/a").count("/a(?:/|$)|/b(?:/|$))") == 3  # as when Apache has it, too


@pytest.mark.parametrize(
    ("mount", "path"),
    [
        ("", "static"),
        ("", "/"),
        ("", ""),
        ("/shop", "/shop"),
        ("/shop", "/shopping"),
        ("/shop", "/other"),
        ("/shop", "shop/x"),
        ("", "/a\nb"),
        ("", "/caf\udce9"),
    ],
)
def test_what_would_keep_nothing_or_all_out_is_refused(tmp_path: Path, mount: str, path: str) -> None:
    with pytest.raises(
        Refused, match=f"--keep-out {path}: a path below {mount or '/'} is needed, such as {mount}/static"
    ):
        written(tmp_path, mount, "/shop/fine", path)
