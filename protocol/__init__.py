"""The contract between the parts of AdvGame: what they exchange and the rules of the game.

Pure: the standard library, pydantic and pyarrow. Importing it loads neither torch, ray nor vllm (a test
holds this), so a laptop can validate a recipe in milliseconds and a unit test needs no cluster.

It knows nothing of how a part does its work: `actors`, `learners` and `judge` meet only here.
"""
