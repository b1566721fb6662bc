"""A model folder is tried before anything starts: its tokenizer is loaded, and prompts are written with its chat template.

What an engine or a learner would find out minutes later is told here, in one line: a tokenizer or a template that cannot be used,
token ids that the embedding has no row for, and parameters that vLLM could not be pushed. No weights are read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engine.chat import ChatPrompts, control_tokens
from learners.storage.models import read_config, text_config
from learners.storage.weight_files import Shapes, check_weights
from protocol.errors import UserError, first_words
from protocol.prompts import attacker_messages, defender_messages
from protocol.recipe import SANDBOX, Recipe
from protocol.roles import Player
from protocol.types import Message, Seed

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")  # a row for each token
TWO_TEXTS = ("one text", "another text")

Chat = Sequence[Message]


def load_tokenizer(folder: str, where: str) -> Any:
    """The folder's tokenizer, as vLLM and the learner load it, with a chat template.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoTokenizer  # a second of imports

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001  # transformers and tokenizers raise what they like
        raise UserError(
            f"{where}: {folder}: its tokenizer cannot be loaded ({first_words(error)}); copy the tokenizer's files from the "
            "base model again"
        ) from None
    if tokenizer.chat_template is None:
        raise UserError(f"{where}: {folder} has no chat template; add chat_template.jinja to the folder")
    return tokenizer


def try_prompts(
    folder: str,
    where: str,
    chats: Iterable[Chat],
    limit: tuple[str, int],
    say: Callable[[str], None],
    arguments: Mapping[str, Any],
) -> None:
    """Writes these prompts as the engine will.

    Args:
        where: the recipe key that named the folder.
        chats: as the game puts them; a system turn may be among them.
        limit: the key and value of the longest context that the engine serves.
        say: told what a person should know although it does no harm.
        arguments: of the chat template, the recipe's.

    Raises:
        UserError: what cannot work, in one line.
    """
    tokenizer = load_tokenizer(folder, where)
    prompts = ChatPrompts(tokenizer, arguments)
    prompts.check(f"{where}: {folder}")
    written = [prompts.encode(chat) for chat in chats]
    one, other = (prompts.encode([{"role": "user", "content": text}]) for text in TWO_TEXTS)
    if one == other:
        raise UserError(f"{where}: {folder}: its chat template leaves out what the user says; give the model's own")
    key, most = limit
    if written and min(map(len, written)) >= most:
        raise UserError(
            f"{where}: {folder}: the game's prompts take {min(map(len, written))} tokens and leave no room in {key} {most}; "
            f"raise {key}"
        )
    _check_rows(folder, where, tokenizer, {token for ids in [one, *written] for token in ids}, say)


def try_players(
    recipe: Recipe, models: Mapping[Player, str], seeds: Sequence[Seed], say: Callable[[str], None]
) -> None:
    """Writes each player's prompts once, of the first seed of each category, which stands for an attack, too.

    Raises:
        UserError: as `try_prompts`, and for a player that learns as `check_push`.
    """
    first = {seed.category: seed for seed in reversed(seeds)}.values()
    game, limit = recipe.game, ("generation.max_model_len", recipe.generation.max_model_len)
    asked = {
        "attacker": [attacker_messages(seed, game.prompts, game.attacker_format) for seed in first],
        "defender": [defender_messages(seed.text, game.prompts, game.defender_format) for seed in first],
    }
    for player, folder in models.items():
        if recipe.models.of(player).path == SANDBOX:
            continue  # made and checked here; the tokenizer's imports would cost a demo some seconds
        where = f"models.{player}.path"
        try_prompts(folder, where, asked[player], limit, say, recipe.models.of(player).template_arguments)
        if player in recipe.trained:
            check_push(folder, where)


def _check_rows(folder: str, where: str, tokenizer: Any, used: set[int], say: Callable[[str], None]) -> None:
    """Every token id that a prompt may hold needs a row of the embedding. Special tokens that no template writes are harmless."""
    rows = _count_rows(folder, where)
    beyond = {token_id: word for word, token_id in tokenizer.get_vocab().items() if rows and token_id >= rows}
    if not beyond:
        return
    idle = set(control_tokens(tokenizer)) - used - {tokenizer.eos_token_id}
    met = sorted(beyond.keys() - idle)
    said = f"{where}: {folder}: its tokenizer has {len(beyond)} ids that its embedding of {rows} rows has none for"
    if met:
        raise UserError(
            f"{said}, and prompts may hold {len(met)} of them, the first {met[0]}; take the tokenizer of this very model, or "
            "resize its embedding (resize_token_embeddings) and save it again"
        )
    say(f"{said}; they are special tokens that no prompt holds, so this does no harm")


def _count_rows(folder: str, where: str) -> int | None:
    shapes = check_weights(Path(folder), where)
    for name, shape in shapes.items():
        if name.endswith(EMBEDDINGS) and len(shape) == 2:
            return shape[0]
    named = text_config(read_config(Path(folder), where)).get("vocab_size")
    return named if isinstance(named, int) else None


def check_push(folder: str, where: str) -> None:
    """The parameters that the learner would push, against the tensors of the folder, under whose names vLLM loads.

    Raises:
        UserError: transformers knows no such model, its parameters have other names or shapes than the files.
    """
    held = check_weights(Path(folder), where)
    if not held:
        return  # pickled weights tell nothing before they are loaded
    for name, shape in _pushed_shapes(folder, where).items():
        found = _find(name, held)
        if found is None:
            raise UserError(
                f"{where}: {folder}: the learner would push a parameter {name}, which the folder's weights do not name, so vLLM "
                "could not load it; give another model, or set the player's train to false"
            )
        if found != shape:
            raise UserError(
                f"{where}: {folder}: {name} has the shape {_show(found)} in its weights and {_show(shape)} by its config.json; "
                "copy config.json and weights from one model"
            )


def _pushed_shapes(folder: str, where: str) -> Shapes:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # noqa: BLE001  # transformers raises what it likes
        raise UserError(
            f"{where}: {folder}: transformers cannot build this model ({first_words(error)}); give one that it knows"
        ) from None
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _find(name: str, held: Shapes) -> tuple[int, ...] | None:
    """Also without its first part, which older folders leave out (`transformer.` of GPT-2) and vLLM adds."""
    return held[name] if name in held else held.get(name.partition(".")[2])


def _show(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
