"""A thin shell over vLLM's `AsyncLLM`: chat prompts in, completions with log-probabilities and policy versions out.

An engine that is not `updatable` is a judge's: its weights stay, and its completions carry no log-probabilities, because nobody
learns from them.

Invariants:
- A request is salted with the version whose weights were served when it was asked. vLLM's prefix cache never crosses salts, so a
  request asked after an update cannot reuse keys and values computed under older weights. Salting, not clearing: the cache
  cannot be cleared while paused requests hold blocks of it. Requests caught by an update, running or waiting in vLLM's queue,
  keep theirs and go on.
- No request enters between `pause` and `resume`: it would be salted with the wrong version. So nothing is awaited from the look at
  the gate, over the salt, to the message that hands the request to EngineCore, and that message is sent before `pause`'s.

Does not decide when weights change (`actors.weights.update`) or who is asked (`actors.clients`), and does not start vLLM (`start`).
vllm is imported when an engine is built, not before, because its environment has to be set first.
"""

import asyncio
import itertools
import threading
from array import array
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import structlog

from actors.engine.answer import AnswerText
from actors.engine.chat import ChatPrompts
from actors.engine.occupancy import Occupancy, StepCounter
from actors.engine.start import StartedLLM, start_llm
from actors.errors import PromptTooLong, WorkerBroken
from protocol.errors import UserError
from protocol.recipe import EngineConfig
from protocol.types import Ask, Completion, as_array

__all__ = ["Engine", "PromptTooLong", "limit_new_tokens", "to_completion"]
_log = structlog.get_logger(__name__)

DIGEST_POLL_S = 0.005  # each look is one message to the engine, between two of its steps
# vLLM's `stream_interval`: it tells of a sample's first token, and of all others when it is finished.
FIRST_AND_LAST = 1 << 30


def limit_new_tokens(prompt_tokens: int, max_model_len: int, max_new_tokens: int) -> int:
    """How many tokens may be sampled: at most `max_new_tokens`, fewer where the prompt is long. The prompt is never cut.

    Raises:
        PromptTooLong: not even one.
    """
    room = max_model_len - prompt_tokens
    if room < 1:
        raise PromptTooLong(
            f"a prompt of {prompt_tokens} tokens leaves no room in generation.max_model_len {max_model_len}"
        )
    return min(room, max_new_tokens)


def to_completion(
    prompt_ids: Sequence[int],
    output: Any,
    with_logprobs: bool = True,
    short_of_room: bool = False,
    text: str | None = None,
) -> Completion:
    """From vLLM's `CompletionOutput` (final, with the sampled token's log-probability at each place, if they were asked for).

    Args:
        short_of_room: the prompt left room for fewer tokens than were wanted, so a cut by length is a cut by the context.
        text: of the completion; None: vLLM's.
    """
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request with {output.finish_reason!r}")
    if not output.weight_versions:
        raise RuntimeError("vLLM reported no weight version for a finished request")
    ids = output.token_ids
    return Completion.of(
        prompt_ids,
        ids,
        [at[token].logprob for token, at in zip(ids, output.logprobs, strict=True)] if with_logprobs else (),
        output.text if text is None else text,
        "no_room" if short_of_room and output.finish_reason == "length" else output.finish_reason,
        version=int(output.weight_versions[0].version),
        last_version=int(output.weight_versions[-1].version),
    )


class Engine:
    """One running `AsyncLLM`. Built by `build`; useless after `close`.

    Args:
        started: vLLM, running.
        prompts, answers: made of its tokenizer.
        max_model_len: tokens, prompt and completion.
        updatable: as in `build`.
        steps: one of the stat loggers that `started` was started with.
    """

    def __init__(
        self,
        started: StartedLLM,
        prompts: ChatPrompts,
        answers: AnswerText,
        max_model_len: int,
        steps: StepCounter,
        updatable: bool,
    ) -> None:
        self._started, self._llm = started, started.llm
        self._updatable = updatable
        self._steps = steps
        self.occupancy: Occupancy = steps.occupancy
        self.dtype = str(self._llm.model_config.dtype).removeprefix("torch.")
        self._prompts, self._answers = prompts, answers
        self._max_model_len = max_model_len
        self._ids = itertools.count()
        self._open = asyncio.Event()
        self._open.set()
        self._salt = "0"
        self._samples: set[asyncio.Task[Completion]] = set()
        self._closed = self._ended = False
        self._ending = threading.Lock()
        self.prompt_tokens = self.cached_tokens = 0  # of all samples; cached ones were in the prefix cache

    @classmethod
    async def build(
        cls,
        model_path: str,
        config: EngineConfig,
        updatable: bool = True,
        template_arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> "Engine":
        """Starts vLLM on the folder's weights, as version 0. The event loop goes on meanwhile.

        Args:
            updatable: whether new weights may be loaded and log-probabilities are wanted, as for a player.
            template_arguments: of the chat template.

        Raises:
            UserError: the folder's tokenizer has no chat template, or cannot hold text apart from control tokens.
            Exception: whatever vLLM says, for example that EngineCore was not ready after `config.start_deadline_s`.
        """
        steps = StepCounter()
        started = await start_llm(model_path, config, updatable, steps)
        try:
            tokenizer = started.llm.get_tokenizer()
            if tokenizer.chat_template is None:
                raise UserError(
                    f"{model_path}: the tokenizer has no chat template; add chat_template.jinja to the folder"
                )
            prompts = ChatPrompts(tokenizer, template_arguments)
            prompts.check(model_path)
            answers = AnswerText(tokenizer, prompts.opening)
            engine = cls(started, prompts, answers, config.max_model_len, steps, updatable)
            await engine.set_version(0)
            # The first request would otherwise await this between its salt and its message to EngineCore.
            await started.llm.get_supported_tasks()
        except BaseException:
            started.close()
            raise
        _log.info("engine ready", import_s=round(started.import_s, 1), build_s=round(started.build_s, 1))
        return engine

    @property
    def steps(self) -> int:
        """Steps of the engine that this process has heard of. It stands still when the engine is idle, paused or stuck."""
        return self._steps.steps

    @property
    def running(self) -> int:
        """Samples asked for and not finished, those that wait for `resume` among them."""
        return len(self._samples)

    @property
    def paused(self) -> bool:
        """Whether it is between `pause` and `resume`."""
        return not self._open.is_set()

    async def check_health(self) -> None:
        """Raises `WorkerBroken` when the engine is closed or vLLM knows that it is dead. An engine that hangs passes."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._closed:
            raise WorkerBroken("the engine was closed")
        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise WorkerBroken("the engine's process died") from error

    async def generate(self, ask: Ask, on_first_token: Callable[[], None] | None = None) -> list[Completion]:
        """One completion for each seed, in order; all or none. A completion that the context cut short says `no_room`.

        Args:
            on_first_token: called once, in the event loop, when any of the samples has its first token.

        Raises:
            PromptTooLong: see `limit_new_tokens`.
            WorkerBroken: the engine died or was closed meanwhile.
        """
        prompt_ids = as_array("i", self._prompts.encode(ask.messages))  # one for all samples: it is pickled once
        room = limit_new_tokens(len(prompt_ids), self._max_model_len, ask.sampling.max_new_tokens)
        if self._closed:
            raise WorkerBroken("the engine was closed")
        began = _Once(on_first_token)
        samples = [asyncio.create_task(self._sample(prompt_ids, ask, seed, room, began)) for seed in ask.seeds]
        self._samples.update(samples)
        try:
            return list(await asyncio.gather(*samples))
        except asyncio.CancelledError:
            if self._closed:
                raise WorkerBroken("the engine was closed while it sampled") from None
            raise
        finally:
            for sample in samples:
                sample.cancel()
            self._samples.difference_update(samples)

    async def _sample(self, prompt_ids: "array[int]", ask: Ask, seed: int, room: int, began: "_Once") -> Completion:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        params = SamplingParams(
            temperature=ask.sampling.temperature,
            top_p=ask.sampling.top_p,
            max_tokens=room,
            seed=seed if ask.sampling.seeded else None,
            logprobs=0 if self._updatable else None,  # 0: the sampled token's only
            structured_outputs=None if ask.pattern is None else StructuredOutputsParams(regex=ask.pattern),
            output_kind=RequestOutputKind.DELTA,  # with CUMULATIVE, vLLM 0.32 heeds no interval
            stream_interval=FIRST_AND_LAST,
        )
        while not self._open.is_set():  # looked at again, because who is woken by a resume may find the next pause
            await self._open.wait()
        if self._closed:
            raise WorkerBroken("the engine was closed")
        prompt = tokens_input(prompt_ids.tolist(), cache_salt=self._salt)
        outputs: AsyncGenerator[Any, None] = self._llm.generate(prompt, params, str(next(self._ids)))
        whole: Any = None
        try:
            async for part in outputs:
                if whole is None:
                    whole = part
                    began()
                else:
                    whole.add(part, aggregate=True)
                if whole.finished:
                    self.prompt_tokens += len(prompt_ids)
                    self.cached_tokens += whole.num_cached_tokens or 0
                    short = room < ask.sampling.max_new_tokens
                    output = whole.outputs[0]
                    text = self._answers(output.token_ids, output.text)
                    return to_completion(prompt_ids, output, self._updatable, short, text)
        except EngineDeadError as error:
            raise WorkerBroken("the engine's process died") from error
        raise WorkerBroken("vLLM ended a request without an answer")

    async def pause(self) -> None:
        """Freezes running requests where they are and holds new ones back. Call `resume` whatever follows."""
        self._open.clear()
        await self._llm.pause_generation(mode="keep", clear_cache=False)

    async def resume(self) -> None:
        """The reverse of `pause`; running requests go on with the weights that are now loaded."""
        await self._llm.resume_generation()
        self._open.set()

    async def begin_join(self, transport: str, native: dict[str, Any]) -> None:
        """Has every worker of the engine meet a learner, for `nccl` or `ipc`, beside its work. See `host_transfer.HostInitInfo`."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(
            WeightTransferInitRequest({"transport": transport, "native": native})
        )

    async def read_join(self) -> list[str]:
        """How far each worker of the engine is; see `joining.Joining.state`."""
        states: list[str] = await self._llm.collective_rpc("read_join")
        return states

    async def abandon_join(self) -> None:
        """Nobody waits for it any more: workers of the engine that come to it late forget it."""
        await self._llm.collective_rpc("abandon_join")

    async def start_update(self) -> None:
        """vLLM's first step of a weight update."""
        await self._llm.start_weight_update()

    async def load(self, update_info: dict[str, Any]) -> None:
        """Hands `host_transfer.HostUpdateInfo`, or `NativeUpdateInfo`, to every worker of the engine."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._llm.update_weights(WeightTransferUpdateRequest(update_info))

    async def finish_update(self, version: int) -> None:
        """Puts the loaded weights in service (still paused) and labels every later token with `version`."""
        await self._llm.finish_weight_update(weight_version=str(version))
        self._salt = str(version)

    async def set_version(self, version: int) -> None:
        """Labels tokens without a change of weights."""
        await self._llm.update_weight_version(str(version))
        self._salt = str(version)

    async def checksums(self) -> dict[str, str]:
        """A digest of every parameter as it lies in the workers, by vLLM's name for it (prefixed with its rank).

        Taken beside generation; nothing may be loaded meanwhile.
        """
        await self._llm.collective_rpc("begin_parameter_digests")
        while True:
            parts: list[dict[str, str] | None] = await self._llm.collective_rpc("read_parameter_digests")
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                return {name: digest for part in found for name, digest in part.items()}
            await asyncio.sleep(DIGEST_POLL_S)

    def give_up(self) -> None:
        """Fails whoever waits with `WorkerBroken`, and takes no request any more. In the event loop; returns at once."""
        if self._closed:
            return
        self._closed = True
        for sample in self._samples:
            sample.cancel()
        self._open.set()

    def close(self) -> None:
        """`give_up`, and ends the engine's processes, which takes seconds: after `give_up`, in any thread. May come twice."""
        self.give_up()
        with self._ending:
            if not self._ended:
                self._ended = True
                self._started.close()


class _Once:
    """Calls what it is given the first time that it is called itself."""

    def __init__(self, call: Callable[[], None] | None) -> None:
        self._call = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()
