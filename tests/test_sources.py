"""Sources: verified to the byte whoever delivers them, patched, content-addressed."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from envcheck import stack as stacks
from envcheck.errors import DataError, EnvcheckError, WorkError
from envcheck.stack import Component, Origin, Stack
from scripts import download, git_mirror, git_objects, index_files, process, sources, sources_lock
from scripts.index_files import IndexFile
from scripts.sources_lock import Patch, Source, Sources, Submodule

STACK = stacks.load()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ENVCHECK_SOURCES", raising=False)
    monkeypatch.setattr(sources_lock, "ROOT", tmp_path / "root")


def test_git_hashes_are_gits_own() -> None:
    body = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nx\n"
    assert git_objects.commit_hash(body) == hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()  # noqa: S324  # git's
    assert git_objects.tree_of_commit(body) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert git_objects.tree_of_commit(b"parent x\n") is None


def test_the_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert git_objects.tree_hash(tmp_path) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://github.com/NVIDIA/TransformerEngine.git", ("NVIDIA", "TransformerEngine")),
        ("git@github.com:google/googletest.git", ("google", "googletest")),
        ("https://github.com/verl-project/verl/", ("verl-project", "verl")),
        ("verl", ("", "verl")),
    ],
)
def test_owner_and_name(url: str, parts: tuple[str, str]) -> None:
    assert git_mirror.owner_and_name(url) == parts


@pytest.mark.parametrize("place", ["O/N.git", "O+N/repo", "N.git", "N", "O/N/.git", "O+N/repo/.git"])
def test_layouts_of_mirrors(place: str) -> None:
    assert Path("/m", place) in list(git_mirror.layouts(Path("/m"), "https://github.com/O/N.git"))


def git(directory: Path, *arguments: str) -> str:
    environ = {
        **os.environ,
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "a"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@example.org"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    argv = ["git", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(argv, cwd=directory, env=environ, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


@pytest.fixture
def mirror(tmp_path: Path) -> tuple[Path, Source]:
    """Two repositories, one a submodule of the other, with what makes a checkout differ from a commit."""
    part, whole = tmp_path / "mirror/o+part/repo", tmp_path / "mirror/o+whole/repo"
    for place in (part, whole):
        place.mkdir(parents=True)
        git(place, "init", "-q", "-b", "main")
    (part / "part.h").write_text("part\n", encoding="ascii")
    git(part, "add", ".")
    git(part, "commit", "-qm", "part")
    (whole / "setup.py").write_text("print(1)\r\n", encoding="ascii", newline="")
    (whole / "run.sh").write_text("#!/bin/sh\n", encoding="ascii")
    (whole / "run.sh").chmod(0o755)
    (whole / "docs").mkdir()
    (whole / "docs/a.txt").write_text("$Format:%H$\n", encoding="ascii")
    (whole / "docs.txt").write_text("sorted before docs/\n", encoding="ascii")
    (whole / "link").symlink_to("docs/a.txt")
    (whole / ".gitattributes").write_text("docs export-ignore\n*.txt export-subst\n*.py text\n", encoding="ascii")
    git(whole, "submodule", "add", "-q", str(part), "third/part")
    git(whole, "add", ".")
    git(whole, "commit", "-qm", "whole")
    source = Source(
        name="whole",
        version="1",
        kind="git",
        url="https://github.com/o/whole.git",
        commit=git(whole, "rev-parse", "HEAD"),
        tree=git(whole, "rev-parse", "HEAD^{tree}"),
        submodule=(
            Submodule(path="third/part", url="https://github.com/o/part.git", commit=git(part, "rev-parse", "HEAD")),
        ),
    )
    return tmp_path / "mirror", source


@pytest.mark.process
def test_a_git_source_is_exported_to_the_byte(mirror: tuple[Path, Source]) -> None:
    places, source = mirror
    ready = sources.prepare(STACK, source, places=[places])
    assert (ready.path / "third/part/part.h").read_text(encoding="ascii") == "part\n"
    assert (ready.path / "docs/a.txt").read_text(encoding="ascii") == "$Format:%H$\n"
    assert os.access(ready.path / "run.sh", os.X_OK)
    assert (ready.path / "link").is_symlink()
    assert not (ready.path / ".git-index").exists()
    assert git_objects.tree_hash(ready.path, source.submodules) == source.tree
    again = sources.prepare(STACK, source, places=[])
    assert again == ready


@pytest.mark.process
def test_a_commit_that_no_place_has(mirror: tuple[Path, Source], tmp_path: Path) -> None:
    places, source = mirror
    lost = replace(source, commit="0" * 40, url=str(tmp_path / "nowhere/o/whole.git"))
    with pytest.raises(
        WorkError, match=r"(?s)commit 0{40} was not to be had:.*does not hold 0{12}.*nowhere.*--source DIR"
    ):
        sources.prepare(STACK, lost, places=[places])
    assert not list((tmp_path / "cache/sources").glob("whole-*"))


@pytest.mark.process
@pytest.mark.parametrize("head", ["", "ref: refs/heads/main\n"])
def test_what_a_killed_run_left_stops_no_later_one(mirror: tuple[Path, Source], tmp_path: Path, head: str) -> None:
    places, source = mirror
    url, commit = str(places / "o+whole/repo"), source.commit or ""
    own = tmp_path / "cache/git/o+whole+repo.git"
    (own / "objects").mkdir(parents=True)
    (own / "HEAD").write_text(head, encoding="ascii")
    (own / "shallow.lock").touch()
    assert git_mirror.find(commit, [url], []) == own
    assert git_mirror.has(own, commit)


GIT_FAILED = """\
git fetch ended with exit code 128:
fatal: '/srv/x.git' does not appear to be a git repository
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists."""


def test_the_line_of_git_that_names_the_fault_is_told() -> None:
    assert git_mirror.said(GIT_FAILED) == "fatal: '/srv/x.git' does not appear to be a git repository"
    assert git_mirror.said("git ended with exit code 1:\nanother word") == "another word"


@pytest.mark.process
def test_a_source_is_fetched_where_no_mirror_has_it(
    mirror: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    places, source = mirror
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{places}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    for name in ("whole", "part"):
        (places / "o").mkdir(exist_ok=True)
        (places / f"o/{name}.git").symlink_to(places / f"o+{name}/repo")
    ready = sources.prepare(STACK, replace(source, mirrors=("https://github.com/gone/whole.git",)))
    assert (ready.path / "third/part/part.h").exists()
    fetched = git_mirror.find(source.commit or "", [source.url or ""], [])
    assert fetched.name == "o+whole.git"


@pytest.mark.process
def test_another_tree_than_the_pinned_one_is_refused(mirror: tuple[Path, Source]) -> None:
    places, source = mirror
    with pytest.raises(WorkError, match=r"the tree of \w{12} was pinned as f{40}, it is"):
        sources.prepare(STACK, replace(source, tree="f" * 40), places=[places])


@pytest.mark.process
def test_a_full_disk_is_said_to_be_one(mirror: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    places, source = mirror
    output = process.output

    def full(argv: Sequence[str], **options: Any) -> str:
        if "checkout-index" in argv:
            raise WorkError("git ended with exit code 1:\nerror: unable to write file setup.py")
        return output(argv, **options)

    monkeypatch.setattr(process, "output", full)
    with pytest.raises(WorkError, match=r"could not be written, \d+ MiB are free there") as caught:
        sources.prepare(STACK, source, places=[places])
    assert "ENVCHECK_CACHE" in caught.value.fix


@pytest.mark.process
def test_another_submodule_than_the_commits_is_refused(mirror: tuple[Path, Source]) -> None:
    places, source = mirror
    other = (replace(source.submodule[0], commit="e" * 40),)
    with pytest.raises(WorkError, match="pin the submodules of this commit"):
        sources.prepare(STACK, replace(source, submodule=other), places=[places])


@pytest.mark.process
def test_a_submodule_that_is_not_pinned_is_left_empty(mirror: tuple[Path, Source]) -> None:
    places, source = mirror
    ready = sources.prepare(STACK, replace(source, submodule=(), tree=None), places=[places])
    assert list((ready.path / "third/part").iterdir()) == []


@pytest.mark.process
def test_a_mirror_that_changes_bytes_is_caught(mirror: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    places, source = mirror
    real = git_objects.tree_hash

    def tampered(root: Path, submodules: dict[str, str]) -> str:
        (root / "setup.py").write_text("import evil\n", encoding="ascii")
        return real(root, submodules)

    monkeypatch.setattr("scripts.git_mirror.tree_hash", tampered)
    with pytest.raises(WorkError, match=r"hash to tree .*, the commit says"):
        sources.prepare(STACK, source, places=[places])


PATCH = b"--- a/setup.py\n+++ b/setup.py\n@@ -1 +1 @@\n-print(1)\n+print(2)\n"


def sdist(tmp_path: Path, *, tops: tuple[str, ...] = ("pkg-1.0",)) -> tuple[Path, Source]:
    """A directory with an sdist, and its source."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for top in tops:
            info = tarfile.TarInfo(f"{top}/setup.py")
            info.size = 9
            file.addfile(info, io.BytesIO(b"print(1)\n"))
    place = tmp_path / "sdists"
    place.mkdir()
    (place / "pkg-1.0.tar.gz").write_bytes(out.getvalue())
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    source = Source(
        name="pkg", version="1.0", kind="sdist", distribution="pkg", file="pkg-1.0.tar.gz", sha256=digest, size=1
    )
    return place, source


def test_an_sdist_is_taken_from_a_directory(tmp_path: Path) -> None:
    place, source = sdist(tmp_path)
    ready = sources.prepare(STACK, source, places=[tmp_path / "empty", place])
    assert (ready.path / "setup.py").read_text(encoding="ascii") == "print(1)\n"


def test_a_tampered_sdist_is_refused_with_both_hashes(tmp_path: Path) -> None:
    place, source = sdist(tmp_path)
    with pytest.raises(WorkError, match=f"sha256 expected {'0' * 64}, got {source.sha256}; it was refused"):
        sources.prepare(STACK, replace(source, sha256="0" * 64), places=[place])


def test_an_sdist_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, source = sdist(tmp_path)
    asked = []

    def fetch(urls: list[str], *, digest: str, **_: object) -> Path:
        asked.append((urls, digest))
        stored = download.stored(digest)
        stored.parent.mkdir(parents=True)
        stored.write_bytes((place / "pkg-1.0.tar.gz").read_bytes())
        return stored

    file = IndexFile(name="pkg-1.0.tar.gz", url="https://files.example/pkg", sha256=source.sha256)
    monkeypatch.setattr(index_files, "sdist_of", lambda *_: file)
    monkeypatch.setattr(download, "fetch", fetch)
    sources.prepare(STACK, source)
    sources.prepare(STACK, replace(source, name="other"))
    assert asked == [(["https://files.example/pkg"], source.sha256)]


def test_an_sdist_with_two_tops_is_refused(tmp_path: Path) -> None:
    place, source = sdist(tmp_path, tops=("pkg-1.0", "other"))
    with pytest.raises(WorkError, match="holds 2 top directories"):
        sources.prepare(STACK, source, places=[place])


@pytest.mark.process
def test_patches_are_checked_and_applied(tmp_path: Path) -> None:
    place, source = sdist(tmp_path)
    own = sources_lock.patch_file(STACK.name, "fix.patch")
    own.parent.mkdir(parents=True)
    own.write_bytes(PATCH)
    patched = replace(source, patch=(Patch(name="fix.patch", sha256=hashlib.sha256(PATCH).hexdigest()),))
    ready = sources.prepare(STACK, patched, places=[place])
    assert (ready.path / "setup.py").read_text(encoding="ascii") == "print(2)\n"
    assert sources.digest_of(patched) != sources.digest_of(source)
    wrong = replace(source, patch=(Patch(name="fix.patch", sha256="0" * 64),))
    with pytest.raises(WorkError, match=r"fix.patch: sha256 expected 0{64}"):
        sources.prepare(STACK, wrong, places=[place])


@pytest.mark.process
def test_a_patch_of_another_components_source(mirror: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    places, source = mirror
    monkeypatch.setenv("ENVCHECK_SOURCES", str(places))
    origin = Origin(kind="git", url=source.url, commit=source.commit)
    stack = with_component(Component(name="whole", distribution="whole", version="1", origin=origin))
    content, digest = sources.patch_bytes(stack, "whole:docs/a.txt")
    assert content == b"$Format:%H$\n"
    assert digest == hashlib.sha256(content).hexdigest()
    assert sources.submodule_urls(stack.component("whole")) == {"third/part": str(places / "o+part/repo")}
    monkeypatch.delenv("ENVCHECK_SOURCES")
    assert sources.submodule_urls(stack.component("whole"), [places]) == {"third/part": str(places / "o+part/repo")}


def with_component(component: Component, name: str = "test") -> Stack:
    return replace(STACK, name=name, components=(*STACK.components, component))


def test_mirror_directories_are_named_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_SOURCES", f"/a{os.pathsep}{os.pathsep}/b")
    assert sources.directories([str(tmp_path), "mirror"]) == [tmp_path, Path("/a"), Path("/b")]
    with pytest.raises(EnvcheckError, match=r"--source .*/nothing: there is no such directory"):
        sources.directories([str(tmp_path / "nothing")])


GIT = Source(
    name="te",
    version="1.7.0",
    kind="git",
    url="https://github.com/N/TE.git",
    mirrors=("https://github.com/M/TE.git",),
    commit="a" * 40,
    tree="b" * 40,
    reason='it says "so"',
    submodule=(Submodule(path="3rdparty/x", url="https://github.com/N/x.git", commit="c" * 40),),
    patch=(Patch(name="p.patch", sha256="d" * 64),),
)


def test_pinned_sources_survive_writing_and_reading() -> None:
    pinned = Sources(version=1, stack="s", source=(GIT,))
    assert sources_lock.parse(sources_lock.render(pinned), "x") == pinned
    assert pinned.of("te").submodules == {"3rdparty/x": "c" * 40}
    with pytest.raises(DataError, match=r"sources.toml: flash: expected one of te"):
        pinned.of("flash")


@pytest.mark.parametrize(("field", "source"), [("commit", replace(GIT, commit=None)), ("url", replace(GIT, url=None))])
def test_a_source_without_a_pin_is_refused(field: str, source: Source) -> None:
    text = sources_lock.render(Sources(version=1, stack="s", source=(source,)))
    with pytest.raises(DataError, match=rf"source\[0\] \(te\).{field}: expected a value"):
        sources_lock.parse(text, "x")


@pytest.mark.parametrize("name", stacks.names())
def test_the_committed_sources_are_those_of_the_stack(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    stack = stacks.load(name)
    pinned = sources_lock.load(name)
    assert [item.name for item in pinned.source] == [item.name for item in sources_lock.buildable(stack)]
    for item in pinned.source:
        origin = next(one.origin for one in stack.components if one.name == item.name and one.origin.kind == item.kind)
        assert item.commit == origin.commit
        assert item.submodules == origin.submodules
        assert tuple(patch.name for patch in item.patch) == origin.patches
        for patch in item.patch:
            own = sources_lock.patch_file(name, patch.name)
            assert ":" in patch.name or hashlib.sha256(own.read_bytes()).hexdigest() == patch.sha256


def test_pinning_reads_the_index_and_the_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    file = IndexFile(name="flash_attn-2.7.4.post1.tar.gz", url="u", sha256="e" * 64, size=5)
    monkeypatch.setattr(index_files, "sdist_of", lambda *_: file)
    monkeypatch.setattr(sources, "submodule_urls", lambda item, _: dict.fromkeys(item.origin.submodules, "https://x/y"))
    monkeypatch.setattr(sources, "patch_bytes", lambda *_: (b"", "f" * 64))
    pinned = sources_lock.make(STACK)
    assert pinned.of("flash-attn").sha256 == "e" * 64
    assert pinned.of("transformer-engine").submodule[0].url == "https://x/y"


def test_locking_writes_and_compares(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sources_lock, "make", lambda *_: Sources(version=1, stack=STACK.name, source=(GIT,)))
    with pytest.raises(WorkError, match="is not what the stack file says"):
        sources.main(["--lock", "--check"])
    assert sources.main(["--lock"]) == 0
    assert sources.main(["--lock", "--check"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert sources_lock.load(STACK.name).source == (GIT,)


def test_sources_that_were_never_pinned() -> None:
    with pytest.raises(DataError, match=r"(?s)expected a sources file.*--lock --stack nowhere"):
        sources_lock.load("nowhere")


def test_fetching_prints_where_each_source_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, source = sdist(tmp_path)
    monkeypatch.setattr(sources_lock, "load", lambda _: Sources(version=1, stack=STACK.name, source=(source,)))
    assert sources.main(["--source", str(place)]) == 0
    assert sources.main(["pkg", "--source", "mirror"]) == 0
    assert capsys.readouterr().out.count(f"pkg {sources.digest_of(source)} ") == 2


def test_a_stack_without_pinned_sources_uses_its_own_origins() -> None:
    origin = Origin(kind="sdist", sha256="a" * 64)
    stack = with_component(Component(name="my-kernel", distribution="my-kernel", version="1.0", origin=origin))
    source = sources_lock.of_component(stack, stack.component("my-kernel"))
    assert (source.file, source.sha256) == ("my_kernel-1.0.tar.gz", "a" * 64)
    bare = with_component(Component(name="bare", distribution="bare", version="1", origin=Origin(kind="sdist")))
    with pytest.raises(DataError, match=r"bare.origin: expected a commit or a sha256"):
        sources_lock.of_component(bare, bare.component("bare"))


JSON = '{"files": [{"filename": "x-1.0.tar.gz", "url": "../f/x-1.0.tar.gz", "hashes": {"sha256": "aa"}, "size": 3}]}'
HTML = '<a href="../f/x-1.0.tar.gz#sha256=aa">x</a><a name="n">y</a><a href="x%2B1.whl#md5=1">z</a>'


def test_index_files_are_read_in_both_forms() -> None:
    url = "https://index.example/simple/x/"
    (file,) = index_files.parse_json(JSON, url)
    assert file == IndexFile(
        name="x-1.0.tar.gz", url="https://index.example/simple/f/x-1.0.tar.gz", sha256="aa", size=3
    )
    first, second = index_files.parse_html(HTML, url)
    assert (first.name, first.sha256) == ("x-1.0.tar.gz", "aa")
    assert (second.name, second.sha256) == ("x+1.whl", None)


@pytest.mark.parametrize(("kind", "body"), [("application/vnd.pypi.simple.v1+json", JSON), ("text/html", HTML)])
def test_the_index_is_asked_in_its_own_form(monkeypatch: pytest.MonkeyPatch, kind: str, body: str) -> None:
    class Response(io.BytesIO):
        headers = {"Content-Type": kind}  # noqa: RUF012  # a test double

    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple/")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    monkeypatch.setattr(index_files.urllib.request, "urlopen", lambda *_, **__: Response(body.encode()))  # type: ignore[attr-defined]
    assert index_files.sdist_of("x", "1.0").url == "https://index.example/simple/f/x-1.0.tar.gz"
    with pytest.raises(WorkError, match=r"no sdist of x 2.0; it has x-1.0.tar.gz"):
        index_files.sdist_of("x", "2.0")


def test_an_index_whose_answer_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise http.client.IncompleteRead(b"")

    monkeypatch.setattr(index_files.urllib.request, "urlopen", broken)  # type: ignore[attr-defined]
    with pytest.raises(WorkError, match="did not give the files of x: the answer broke off"):
        index_files.files("x", "https://index.example/simple")


def test_an_index_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(index_files.urllib.request, "urlopen", down)  # type: ignore[attr-defined]
    with pytest.raises(WorkError, match="did not give the files of x: timed out"):
        index_files.files("x", "https://index.example/simple")


@pytest.mark.parametrize(
    ("output", "url"),
    [
        pytest.param(
            lambda: "global.index-url='https://own.example/simple/'\n", "https://own.example/simple", id="pip"
        ),
        pytest.param(lambda: "user.index-url='https://mine.example/'\n", "https://mine.example", id="user"),
    ],
)
def test_the_index_of_pips_configuration(monkeypatch: pytest.MonkeyPatch, output: Callable[[], str], url: str) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(index_files.process, "output", lambda *_, **__: output())  # type: ignore[attr-defined]
    assert index_files.simple_url() == url


def test_without_configuration_pips_default_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(*_: object, **__: object) -> str:
        raise WorkError("pip ended with exit code 1")

    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(index_files.process, "output", no_pip)  # type: ignore[attr-defined]
    assert index_files.simple_url().endswith("/simple")
