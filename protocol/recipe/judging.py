"""The recipe's `judge` section: who judges, in what form, and when its failures pause the run."""

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.recipe.engines import EngineConfig, JudgeSamplingConfig
from protocol.recipe.sections import SANDBOX, NonNegative, Positive, Seconds, Section


class ApiConfig(Section):
    """An OpenAI-compatible endpoint. The key is read from the environment and never written anywhere."""

    base_url: str | None = None  # as in https://api.example.com/v1
    model: str | None = None
    key_env: str = (
        "OPENAI_API_KEY"  # the name of the variable; a local server that wants none gets "EMPTY" by key_env: ""
    )
    # How the limit of an answer is called in a request; some servers know the older name only.
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    concurrency: Positive = 16  # requests in flight; the others wait without a deadline
    timeout_s: Seconds = 60.0  # for one attempt, from when it is sent
    retries: Annotated[int, Field(ge=0)] = 5  # after 408, 409, 429, 5xx, a timeout or a lost connection
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    price_in: NonNegative = 0.0  # for a million prompt tokens, in the currency of `budget`
    price_out: NonNegative = 0.0  # for a million completion tokens
    budget: Annotated[float, Field(gt=0.0)] | None = None  # hard: no request is sent that could pass it
    budget_tokens: Positive | None = None  # hard, prompt and completion
    context: Positive | None = None  # tokens that the model takes, if known; checked like `judge.engine.max_model_len`


class AlarmConfig(Section):
    """While the judge fails too often, no game is dealt."""

    failure_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25  # of the latest verdicts; above it the run pauses
    window: Positive = 200  # latest verdicts that are counted; fewer than half of it never raise the alarm
    pause_s: Seconds = 15.0  # between two probes, of `probe_games` games, whether it answers again
    probe_games: Positive = 4


class ProbeConfig(Section):
    """A fixed labelled set that is judged every `every` steps; changes of its scores are drift."""

    file: str | None = None  # as `calibrate --labels`, or `sandbox`; null: none
    every: Positive = 50  # steps of the slower learner


class JudgeConfig(Section):
    """Who judges.

    `rules` knows the sandbox's world exactly and nothing else; `match` looks for phrases and counts words, and is easy to fool;
    `lm` is a model on vLLM; `api` an OpenAI-compatible endpoint; `none` fails every verdict.
    """

    kind: Literal["rules", "match", "lm", "api", "none"] = "rules"
    form: Literal["pairwise", "pointwise"] = "pairwise"
    rubrics: str = "standard"  # `standard`, `sandbox`, or a folder of rubric files
    model: str = SANDBOX  # `lm`: a Hugging Face folder, or the sandbox's tiny judge
    template_arguments: dict[str, Any] = Field(default_factory=dict)  # `lm`: as `models.attacker.template_arguments`
    verdicts: Positive = 1  # sampled for each question and averaged; a failed one is left out, all failed is a failure
    structured: bool = (
        False  # `lm`, `api`: the decoder is constrained to the verdict's form: bounded reasoning, no parse errors
    )
    sampling: JudgeSamplingConfig = JudgeSamplingConfig()
    engine: EngineConfig = EngineConfig(max_model_len=32_768)
    api: ApiConfig = ApiConfig()
    alarm: AlarmConfig = AlarmConfig()
    probe: ProbeConfig = ProbeConfig()
    cache_entries: Annotated[int, Field(ge=0)] = (
        100_000  # verdicts remembered by (judge, rubric version, texts); 0: none
    )
    workers: Positive = 2
    attempts: Positive = 3  # an unparseable verdict is asked again with another seed
    # For one call of the pool, however many questions it carries. `api`: for a health check of the worker instead, because a
    # question waits there for the endpoint's limits, and its attempts have `api.timeout_s`.
    deadline_s: Seconds = 60.0
    cpus_per_worker: NonNegative = 0.1
    gpus_per_worker: NonNegative = 0.0
