"""The API judge's client against vLLM's own OpenAI server, on the CPU, with a tiny random model."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engine.arguments import prepare_environment
from judge.api.client import ApiGenerator, check_endpoint
from judge.errors import JudgeUnavailable
from judge.verdicts import parse, pattern
from protocol.errors import UserError
from protocol.recipe import ApiConfig, GenerationConfig, JudgeConfig, SamplingConfig
from protocol.types import Ask, Sampling
from tests.integration.tiny_qwen import save_tiny
from tests.net import free_port

KEY = "sk-only-for-this-test"
START_S = 200.0
ASK = Ask("ask", ({"role": "user", "content": "w1- w2- w3-"},), (1, 2, 1), Sampling(1.0, 1.0, 24))


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return str(response.read().decode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has started."""
    folder, port = tmp_path_factory.mktemp("vllm"), free_port()
    save_tiny(folder / "model", seed=5)
    environ = dict(os.environ)
    prepare_environment(GenerationConfig(), cuda=False, environ=environ)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
    command += ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager"]
    # As in actors.engine.arguments: a chunked prompt with a seed kills vLLM on a CPU, and a third process doubles the start.
    command += ["--no-enable-chunked-prefill", "--kv-cache-memory-bytes", str(2**28)]
    command += ["--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"]
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("w") as out, subprocess.Popen(command, env=environ, stdout=out, stderr=out) as process:
        try:
            end = time.monotonic() + START_S
            while True:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < end, f"no server in {START_S} s: {log.read_text()[-3000:]}"
                try:
                    fetch(f"{url}/health")
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()  # it ends its engine
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def config(server: str, monkeypatch: pytest.MonkeyPatch) -> ApiConfig:
    monkeypatch.setenv("TINY_KEY", KEY)
    return ApiConfig(base_url=f"{server}/v1", model="tiny", key_env="TINY_KEY", retries=1, timeout_s=60.0)


def counted(server: str) -> tuple[int, int]:
    """Prompt and generated tokens by the server's own metrics."""
    text = fetch(f"{server}/metrics")
    counts = [
        re.search(rf"^vllm:{name}_tokens_total{{.*}} (\S+)$", text, re.MULTILINE) for name in ("prompt", "generation")
    ]
    return tuple(int(float(c[1])) for c in counts if c)  # type: ignore[return-value]


@pytest.mark.timeout(300)
async def test_completions_seeds_and_the_account_agree_with_the_server(
    server: str, config: ApiConfig, tmp_path: Path
) -> None:
    generator = ApiGenerator(config, tmp_path / "ledger.jsonl")
    before = counted(server)
    first = await generator.generate(ASK)
    again = await generator.generate(ASK)
    longest = await generator.generate(Ask("short", ASK.messages, (3,), Sampling(1.0, 1.0, 2)))
    after = counted(server)
    used = generator.usage()
    await generator.close()
    assert [c.text for c in first] == [c.text for c in again]
    assert first[0].text == first[2].text != first[1].text
    assert longest[0].finish == "length"
    assert (used.tokens_in, used.tokens_out) == (after[0] - before[0], after[1] - before[1])
    assert (used.requests, used.retries, used.unmetered) == (7, 0, 0)


@pytest.mark.timeout(300)
async def test_a_structured_verdict_parses_even_from_a_random_model(config: ApiConfig) -> None:
    generator = ApiGenerator(config, None)
    held = pattern("compliance", 2, 200)
    completions = await generator.generate(Ask("held", ASK.messages, (1, 2, 3), Sampling(1.0, 1.0, 200), pattern=held))
    await generator.close()
    for completion in completions:
        assert completion.finish == "stop"
        assert isinstance(parse(completion.text, "compliance", 2), tuple), completion.text


@pytest.mark.timeout(300)
def test_a_bad_endpoint_is_one_line_before_the_run(config: ApiConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(max_new_tokens: int = 200, **api: str) -> None:
        sampling = SamplingConfig(max_new_tokens=max_new_tokens)
        check_endpoint(JudgeConfig(kind="api", structured=True, sampling=sampling, api=config.model_copy(update=api)))

    check()
    with pytest.raises(UserError, match=r"^judge\.api\.model: 'large' at .* \(404\); correct judge\.api\.model"):
        check(model="large")
    with pytest.raises(UserError, match=r"^judge\.api\.model: 'tiny' at .* \(404\); correct"):
        check(base_url=str(config.base_url).removesuffix("/v1"))
    with pytest.raises(
        UserError, match=r"max_completion_tokens refused \(400\) .* max_new_tokens 8192\), judge\.structured \(true\)$"
    ):
        check(8192)  # the model takes 512 tokens
    monkeypatch.setenv("TINY_KEY", "sk-another")
    with pytest.raises(UserError, match=r"^judge\.api\.key_env: .* key refused \(401\), with TINY_KEY"):
        check()


@pytest.mark.timeout(300)
async def test_a_prompt_that_is_too_long_is_refused_for_good(config: ApiConfig) -> None:
    generator = ApiGenerator(config, None)
    with pytest.raises(JudgeUnavailable, match=r"request refused \(400\)") as refused:
        await generator.generate(Ask("long", ({"role": "user", "content": "w1- " * 600},), (1,), ASK.sampling))
    used = generator.usage()
    await generator.close()
    assert refused.value.permanent
    assert (used.requests, used.tokens_in) == (1, 0)
