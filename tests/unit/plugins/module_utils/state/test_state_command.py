"""The real runner, against real commands."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils import command


def test_output_and_status():
    done = command.run(["sh", "-c", "echo out; echo first >&2; echo last >&2; exit 3"])
    assert (done.rc, done.stdout, done.complaint) == (3, "out\n", "first / last")


def test_a_missing_tool_is_data():
    assert command.run(["dgx-vllm-no-such-tool"]).rc == command.MISSING


def test_a_hanging_tool_is_cut_off():
    done = command.run(["sleep", "20"], timeout=0.1)
    assert done.rc == command.TIMED_OUT
    assert done.complaint == "sleep gave no answer within 0.1 s"


def test_the_locale_is_fixed():
    assert command.run(["sh", "-c", "echo $LC_ALL"]).stdout == "C\n"


def test_complaint_falls_back_to_stdout():
    assert command.Completed(1, "broken\n\n", " \n").complaint == "broken"
    assert command.Completed(1, "", "").complaint == ""


def test_additional_environment_keeps_the_rest(monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "kept")
    shown = command.run(["sh", "-c", "echo $HF_TOKEN $FROM_OUTSIDE $LC_ALL"], environment={"HF_TOKEN": "t"})
    assert shown.stdout == "t kept C\n"
