"""ops/scripts/support-bundle: what is in it, what must not be, and what it does beside the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import Cluster
from ops_scripts import Scripts
from safekeeping.collectors_host import processes
from safekeeping.redaction import Redaction
from store_server import StoreServer

DONE, USAGE = 0, 2
PASSWORD, LOGIN, KEY, BEARER, WEB = "Zq8-store-pw", "login-Pw-77", "AkEy/9+secretvalue", "abc.DEF-123456", "hook-9081-s"


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {}
        for entry in archive.getmembers():
            content = archive.extractfile(entry)
            assert content is not None
            files[entry.name.removeprefix("tenure-support/")] = content.read().decode()
        return files


def manifest(files: dict[str, str]) -> Any:
    return json.loads(files["manifest.json"])


@pytest.fixture
async def failing(cluster: Cluster) -> Cluster:
    """A cluster with a dead letter whose evaluation had a secret in its environment, and printed it."""
    os.environ["WEBHOOK_SECRET"] = WEB
    try:
        await cluster.add_worker("w1")
    finally:
        del os.environ["WEBHOOK_SECRET"]
    await cluster.submit("first", ["dead"], {"fate": "fatal"})
    await cluster.all_ended("first")
    return cluster


async def test_everything_of_a_cluster_is_in_it(failing: Cluster, scripts: Scripts, tmp_path: Path) -> None:
    log = tmp_path / "master" / "master.log"
    words = ["--master", failing.master.address, "--http", failing.master.facts["http"]]
    words += ["--data-dir", str(failing.master.data_dir), "--log", str(log), "--out", str(tmp_path / "b.tar.gz")]
    with log.open("a") as file:
        file.write(f"said somewhere: {WEB}\n")

    said = await scripts("support-bundle", *words, "--dry-run")
    assert said.code == DONE, said
    assert "  broker/dead-letters.json" in said.out
    assert not (tmp_path / "b.tar.gz").exists()

    said = await scripts("support-bundle", *words)
    assert said.code == DONE, said
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    files = unpacked(tmp_path / "b.tar.gz")
    told = manifest(files)
    listed = {each["name"] for each in told["files"]}
    assert listed == files.keys() - {"manifest.json"}
    stats = json.loads(files["broker/stats.json"])
    assert stats["tasks"]["FAILED"] == 1
    (record,) = json.loads(files["broker/dead-letters.json"])["first"]["last"]
    assert record["attempt_records"][0]["error_class"].endswith("FatalError")
    assert not {"architecture", "config"} & record.keys()
    assert json.loads(files["broker/workers.json"])[0]["worker_id"] == "w1"
    assert json.loads(files["broker/fsck.json"])["violations"] == []
    assert "tenure_" in files[f"http/{failing.master.facts['http'].replace(':', '-')}/metrics.txt"]
    assert "aof_enabled" in files["store/info.json"]
    assert "appendfsync" in files["store/config.json"]
    assert "appendonlydir" in files["store/files.txt"]
    assert "master.ready" in files["logs/0-master.log"]
    assert json.loads(files["versions.json"])["packages"]["grpcio"]
    assert json.loads(files["system/system.json"])["memory"]["total"] > 0
    pids = {each["pid"] for each in json.loads(files["settings/processes.json"])}
    assert {failing.master.pid, failing.workers["w1"].pid} <= pids
    # The worker's environment has it under a name that says what it is; so it is known wherever it stands.
    assert "said somewhere: ***" in files["logs/0-master.log"]
    assert WEB not in "".join(files.values())


async def test_beside_the_dead_it_takes_what_there_is(failing: Cluster, scripts: Scripts, tmp_path: Path) -> None:
    failing.master.kill()
    words = ["--master", failing.master.address, "--http", failing.master.facts["http"]]
    words += ["--data-dir", str(failing.master.data_dir), "--out", str(tmp_path / "b.tar.gz")]
    said = await scripts("support-bundle", *words)
    assert said.code == DONE, said
    files = unpacked(tmp_path / "b.tar.gz")
    missing = manifest(files)["missing"]
    assert "no master" in missing["broker/workers.json"]
    assert "no master runs on" in missing["store/info.json"] or "answer" in missing["store/info.json"]
    assert "not in it: broker/stats.json: " in said.out
    assert "Ready to accept connections" in files["store/server.log"]
    assert files["settings/processes.json"]
    assert "appendonlydir" in files["store/files.txt"]


async def test_planted_secrets_are_not_in_it(scripts: Scripts, tmp_path: Path) -> None:
    server = StoreServer(tmp_path / "server", requirepass=PASSWORD).start()
    log, settings, out = tmp_path / "some.log", tmp_path / "master.env", tmp_path / "b.tar.gz"
    settings.write_text(f"# comment\nTENURE_MASTER_STORE=redis://tenure:{LOGIN}@store:6379/0\nAWS_KEY_ID=x\n")
    lines = [
        json.dumps({"event": "task.claim", "lease_token": "0f" * 16, "task": "0-abc"}),
        f"Authorization: Bearer {BEARER}",
        f"tried {PASSWORD} and {LOGIN}, then {KEY}",
        "AKIAABCDEFGHIJKLMNOP ghp_0123456789abcdefghijABCDEFGHIJ0123456789",
        "https://bucket/x?X-Amz-Signature=1&token=querytokenvalue",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "plain words stay",
    ]
    log.write_text("\n".join(lines) + "\n")
    try:
        said = await scripts(
            "support-bundle",
            *(
                "--store",
                f"{server.url}?password={PASSWORD}",
                "--master",
                "127.0.0.1:1",
                "--http",
                "127.0.0.1:1",
                "--timeout",
                "1",
            ),
            *("--log", log, "--env-file", settings, "--out", out, "--output", "json"),
            AWS_SECRET_ACCESS_KEY=KEY,
        )
    finally:
        server.remove()
    assert said.code == DONE, said
    files = unpacked(out)
    assert "plain words stay" in files["logs/0-some.log"]
    assert "0-abc" in files["logs/0-some.log"]
    assert json.loads(files["store/config.json"]), "the server let itself be asked"
    everything = "".join(files.values()) + said.out + said.err
    secrets = (PASSWORD, LOGIN, KEY, BEARER, "0f" * 16, "AKIAABCDEFGH", "ghp_0123", "querytokenvalue", "MIIEow")
    assert [secret for secret in secrets if secret in everything] == []


async def test_it_stays_within_its_size(scripts: Scripts, tmp_path: Path) -> None:
    logs = []
    for number in range(12):
        logs.append(tmp_path / f"{number}.log")
        logs[-1].write_text("".join(f"line {line} of {number}\n" for line in range(40_000)))
    words: list[str | Path] = [word for log in logs for word in ("--log", log)]
    words += ["--max-mb", "1", "--out", tmp_path / "b.tar.gz", "--data-dir", tmp_path, "--master", "127.0.0.1:1"]
    words += ["--timeout", "1"]
    said = await scripts("support-bundle", *words)
    assert said.code == DONE, said
    files = unpacked(tmp_path / "b.tar.gz")
    assert sum(map(len, files.values())) < 1.2 * (1 << 20)
    assert "line 39999 of 0\n" in files["logs/0-0.log"], "the end is kept"
    assert "left out: --max-mb is reached" in manifest(files)["missing"].values()
    assert (await scripts("support-bundle", "--max-mb", "0")).code == USAGE


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"password": "a b"}', '{"password": "***"}'),
        ("DB_PASSWORD=geheim rest", "DB_PASSWORD=*** rest"),
        ("--sentinel-password geheim --next", "--sentinel-password *** --next"),
        ("redis://u:geheim@h:1/0", "redis://u:***@h:1/0"),
        ("rediss://:geheim@h:1?x=1", "rediss://:***@h:1?x=1"),
        ("tokens: 17, compass=north, passed: 3", "tokens: 17, compass=north, passed: 3"),
        ("key=search-7 keys: 3", "key=search-7 keys: 3"),
        ('"monkey": "banana"', '"monkey": "banana"'),
        ("redis://:p@ssw0rd-hunter2@store", "redis://:***@store"),
        ("https://u:a/b?c@d@h/x http://h:1/y", "https://u:***@h/x http://h:1/y"),
        ('["redis://u:a@b@h", "redis://u:c@h"]', '["redis://u:***@h", "redis://u:***@h"]'),
        ("PGPASSWORD=abcdef DBPASS=ab,c;d", "PGPASSWORD=*** DBPASS=***"),
        ("MYSQL_PWD=abcdef PWD=/root", "MYSQL_PWD=*** PWD=/root"),
        (
            "clientSecret=a accessToken: b, AZURE_STORAGE_KEY=c",
            "clientSecret=*** accessToken: ***, AZURE_STORAGE_KEY=***",
        ),
        (r'{"requirepass": "ab\"cdefghij", "port": 1}', '{"requirepass": "***", "port": 1}'),
        (r'{"event": "{\"token\": \"ab\\\"cd\", \"n\": 1}"}', r'{"event": "{\"token\": \"***\", \"n\": 1}"}'),
        ('"password": "cut o', '"password": "***"'),
        ('["--pass",\n "geheim"]', '["--pass",\n "***"]'),
        ("['--api-key', 'geheim']", "['--api-key', '***']"),
        ("--password 'a b' --next", "--password '***' --next"),
        ('{"token":null,"x":1}', '{"token":***,"x":1}'),
        ("?X-Amz-Credential=AK%2F1&X-Amz-Signature=0af&y=1", "?X-Amz-Credential=***&X-Amz-Signature=***&y=1"),
        ("https://a/b?sv=2020&sig=ab%3D&se=4", "https://a/b?sv=2020&sig=***&se=4"),
        ("curl -sSu user:geheim http://h", "curl -sSu user:*** http://h"),
        ('curl --user "user:ge heim" h', 'curl --user "user:***" h'),
        ('["curl", "-u", "user:geheim", "h"]', '["curl", "-u", "user:***", "h"]'),
        ("mysql -u root -pgeheim db", "mysql -u root -p*** db"),
        ("sshpass -p geheim ssh h", "sshpass -p *** ssh h"),
        ("redis-cli -h h -a geheim ping", "redis-cli -h h -a *** ping"),
        ("mysql -P 3306 -p; mkdir -p /a; run -u 1:2 -p 80:80", "mysql -P 3306 -p; mkdir -p /a; run -u 1:2 -p 80:80"),
        ("password is: geheim, retry", "password is: *** retry"),
        ("Password: geheim", "Password: ***"),
        ("the password is hunter2", "the password is ***"),
        ("passphrase was 'ge heim' there", "passphrase was *** there"),
        ("the password is wrong, the token is expired", "the password is wrong, the token is expired"),
        ("api key: geheim", "api key: ***"),
        (r"{\"password\": \"geheim\", \"api_key\":\"b\"}", r"{\"password\": \"***\", \"api_key\":\"***\"}"),
        (r"{\"db_password\": \"geheim\"}", r"{\"db_password\": \"***\"}"),
    ],
)
def test_names_that_say_secret_lose_their_value_and_others_keep_it(text: str, left: str) -> None:
    assert Redaction()(text) == left


@pytest.mark.parametrize("depth", range(5))
def test_json_in_json_is_looked_through(depth: int) -> None:
    """As a dead letter holds a log that holds an answer that holds settings."""
    text, left = '{"db_password": "ge\\"heim", "n": 1}', '{"db_password": "***", "n": 1}'
    for _ in range(depth):
        text, left = json.dumps({"said": text}), json.dumps({"said": left})
    assert Redaction()(text) == left


def test_a_value_that_is_known_goes_however_it_is_written() -> None:
    redaction = Redaction()
    redaction.learn({"store": "redis://:p%40ss-word@a,redis://u:x@y-zz@b", "MY_PASS": 'ab,cd"ef'})
    text = 'p@ss-word p%40ss-word x@y-zz ab,cd"ef ab,cd\\"ef MY_PASS=ab,cd"ef'
    assert redaction(text) == "*** *** *** *** *** MY_PASS=***"


def test_the_options_of_another_users_process_are_learnt_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: psutil.Process) -> dict[str, str]:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "environ", refused)
    command = [sys.executable, "-c", "input()", "tenure", "worker", "--pass", "hunter2-secret"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        redaction = Redaction()
        found = [each for each in json.loads(processes(redaction)) if each["pid"] == process.pid]
        process.kill()
    assert "another user" in found[0]["note"]
    assert redaction("logged hunter2-secret") == "logged ***"


def test_long_texts_without_spaces_are_read_in_one_go() -> None:
    """Some patterns take ages for such; a bundle has many megabytes of logs."""
    for text in ("a_" * 50_000, "://" * 50_000, "secret" * 20_000, "-" * 100_000, '"' * 100_000):
        assert Redaction()(text) == text
