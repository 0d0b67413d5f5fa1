"""A key is in the environment and in the request's header, and nowhere else."""

from pathlib import Path

import pytest

from tests.eval.fake_server import Answer, Body, fake, reply
from tests.eval.runner import build, evaluate, problems

KEY = "sk-very-secret-0123456789"


def everything(folder: Path) -> str:
    return "\n".join(
        file.read_text("utf-8", "replace") for file in folder.rglob("*") if file.is_file()
    )


def test_no_output_carries_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where the server repeats it: in answers, in refusals, in errors that pass."""
    monkeypatch.setenv("MY_KEY", KEY)

    def gossip(body: Body, number: int) -> Answer | None:
        said = f"Incorrect API key provided: {KEY}"
        if number < 4:
            return None
        if number % 3 == 0:
            return Answer(500, {"error": {"message": said}})
        good = reply(body)
        for one in good["choices"]:
            one["message"] = {"content": said + " \\boxed{1}", "reasoning": said}
        return Answer(body=good)

    data, out = problems(tmp_path, 8), tmp_path / "out"
    with fake(gossip) as server:
        flags = ("--api_key_env=MY_KEY", "--retries=0", "--n=2")
        assert evaluate(server, data, out, *flags) == 1
        assert set(server.keys) == {f"Bearer {KEY}"}

        def refuse(body: Body, number: int) -> Answer:
            return Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

        server.behave = refuse
        assert evaluate(server, data, tmp_path / "refused", "--api_key_env=MY_KEY") == 2
        server.behave = gossip
        argv = (f"--from={server.url}", "--model=adder", f"--data={data}", "--gates=length",
                "--min_hint=1", "--api_key_env=MY_KEY", "--workers=1", "--retries=0",
                "--k=1", "--backoff=0", f"--out={tmp_path}/bank.jsonl")  # fmt: skip
        assert build(*argv) in (0, 1)
    said = capsys.readouterr()
    written = everything(tmp_path) + said.out + said.err
    assert "Incorrect API key provided: [key]" in written  # the words are there, the key is not
    assert KEY not in written


def test_passwords_in_an_address_are_not_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake() as server:
        address = server.url.replace("//", "//me:hunter2@") + "/v1?token=hunter3"
        flags = (f"--endpoint={address}",)
        assert evaluate(server, problems(tmp_path, 2), tmp_path / "out", *flags) == 0
    said = capsys.readouterr()
    written = everything(tmp_path) + said.out + said.err
    assert "hunter" not in written and "/v1" in written
