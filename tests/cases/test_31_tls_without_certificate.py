"""Case 31: a scheduler that asks for a certificate, and none is configured: one sentence, at once."""

from __future__ import annotations

import json
import time

import dask
import pytest

from locomass.errors import LocomassError
from locomass.executors import open_executor

TLS = "distributed.comm.tls"


def test_the_missing_setting_is_named_at_once():
    start = time.monotonic()
    with (
        pytest.raises(LocomassError, match=r"asks for a certificate, and DASK_DISTRIBUTED__COMM__TLS__CA_FILE is not"),
        open_executor(cluster="tls://127.0.0.1:28786"),
    ):
        pass
    assert time.monotonic() - start < 5


def test_each_setting_is_asked_for_and_must_be_a_file(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    cases = [
        ({f"{TLS}.ca-file": str(tmp_path / "ca.pem")}, "CLIENT__CERT is not set"),
        (
            {f"{TLS}.ca-file": str(tmp_path / "ca.pem"), f"{TLS}.client.cert": str(tmp_path / "absent.pem")},
            r"CLIENT__CERT names .*absent.pem, which cannot be read",
        ),
        (
            {f"{TLS}.ca-file": str(tmp_path / "ca.pem"), f"{TLS}.client.cert": str(tmp_path / "ca.pem")},
            "no Dask scheduler answers",  # a file that is no certificate
        ),
    ]
    for settings, message in cases:
        with (
            dask.config.set(settings),
            pytest.raises(LocomassError, match=message),
            open_executor(cluster="tls://127.0.0.1:28786"),
        ):
            pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"address": "tls://127.0.0.1:28786"}), "asks for a certificate"),
        ("{}", "is not the file that a Dask scheduler wrote"),
        ("[1]", "is not the file that a Dask scheduler wrote"),
        ("not json", "is not the file that a Dask scheduler wrote"),
        (json.dumps({"address": "gopher://x:1"}), "unknown protocol 'gopher://'"),
    ],
)
def test_scheduler_files(tmp_path, text, message):
    file = tmp_path / "scheduler.json"
    file.write_text(text)
    with pytest.raises(LocomassError, match=message), open_executor(cluster=file):
        pass


@pytest.mark.parametrize("address", ["tcp://", "tcp://nowhere.invalid:8786", "tcp://127.0.0.1:notaport", "ucx://h:1"])
def test_addresses_that_lead_nowhere_are_one_error(address, monkeypatch):
    monkeypatch.setattr("locomass.executors.scheduler.CONNECT_SECONDS", 1)
    with pytest.raises(LocomassError, match="no Dask scheduler answers"), open_executor(cluster=address):
        pass
