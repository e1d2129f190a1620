"""The magic in a real kernel: a stop keeps what is there, in a cell and in a loop, and nothing is shown twice."""

from __future__ import annotations

import os
import time

import pytest


@pytest.fixture(scope="module")
def kernel(real_path, tmp_path_factory):
    """Run a cell in a kernel; returns its reply and what was displayed. `interrupt_after_s` stops it."""
    from jupyter_client.manager import start_new_kernel

    environment = os.environ | {"IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    manager, client = start_new_kernel(kernel_name="python3", env=environment)

    def run(code, interrupt_after_s=None):
        outputs, state = [], {}

        def collect(message):
            kind, content = message["msg_type"], message["content"]
            if kind == "update_display_data":
                outputs[:] = [o for o in outputs if o.get("id") != content["transient"]["display_id"]]
            if kind in ("display_data", "update_display_data", "execute_result"):
                outputs.append({"id": content.get("transient", {}).get("display_id"), **content["data"]})
            is_begun = kind == "update_display_data" or (kind == "display_data" and "▏" in content["data"]["text/html"])
            if interrupt_after_s is not None and is_begun and "at" not in state:
                time.sleep(interrupt_after_s)
                state["at"] = time.monotonic()
                manager.interrupt_kernel()

        reply = client.execute_interactive(code, timeout=120, output_hook=collect)
        return reply["content"], outputs, time.monotonic() - state.get("at", time.monotonic())

    run("%load_ext llm_magic\n%llm --quiet -n 1 warm up")
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def value(kernel, expression):
    return eval(kernel(expression)[1][0]["text/plain"])


def test_an_interrupted_cell_keeps_its_answer_and_goes_on(kernel):
    reply, outputs, took_s = kernel("x = %llm -T 1 -n 2000 Tell me a long story.", interrupt_after_s=0.3)
    assert reply["status"] == "ok" and took_s < 0.5
    assert len(outputs) == 1 and "interrupted" in outputs[0]["text/plain"]
    n = value(kernel, "len(x.tokens)")
    assert value(kernel, "(x.finish_reason, x is _llm, len(x.text) > 10)") == ("interrupted", True, True)
    kernel("y = %llm continue -n 5")
    assert value(kernel, "(len(y.tokens), y.tokens[:len(x.tokens)] == x.tokens)") == (n + 5, True)


def test_an_interrupt_ends_a_loop_of_prompts(kernel):
    cell = "n = 0\nfor i in range(50):\n    %llm -T 1 -n 300 Tell me a story.\n    n += 1"
    reply, _, took_s = kernel(cell, interrupt_after_s=0.3)
    assert reply["status"] == "error" and reply["ename"] == "KeyboardInterrupt" and took_s < 0.6
    assert value(kernel, "n") == 1


def test_a_long_prompt_can_be_stopped(kernel):
    cell = "z = %llm text -n 5 {text}"
    kernel("text = 'The quick brown fox jumps over the lazy dog. ' * 700")
    started = time.monotonic()
    reply, outputs, _ = kernel(cell)
    whole_s = time.monotonic() - started
    assert reply["status"] == "ok" and len(outputs) == 1
    kernel("%llm reset")
    code = f"import signal, threading, os\nthreading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n{cell}"
    started = time.monotonic()
    reply, outputs, _ = kernel(code)
    took_s = time.monotonic() - started
    assert reply["status"] == "ok" and took_s < max(1.5, whole_s / 2)
    assert value(kernel, "(z.finish_reason, len(z.tokens))") == ("interrupted", 0)


def test_an_answer_is_not_shown_a_second_time_as_the_cells_value(kernel):
    reply, outputs, _ = kernel("%llm -n 3 Hello")
    assert len(outputs) == 1 and reply["status"] == "ok"
    assert value(kernel, "Out[max(Out)] is _llm") is True
    assert len(kernel("_llm")[1]) == 1


def test_an_error_is_one_line(kernel):
    reply, _, _ = kernel("%llm --temprature 1 hi")
    assert reply["ename"] == "UsageError" and "--temperature" in reply["evalue"]
