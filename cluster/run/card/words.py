"""What a model card says of every player of a kind, whatever the run: what it is, whom it is for, what its figures do not say."""

from protocol.roles import Player

TITLES: dict[Player, str] = {"attacker": "Attacker", "defender": "Defender"}

WHAT: dict[Player, str] = {
    "attacker": (
        "**A red-teaming agent.** It is given a request and rewrites it so that an assistant answers what it should "
        "refuse, or refuses what it should answer. It was trained in a game against a Defender, with AdvGame."
    ),
    "defender": (
        "An assistant that was trained to answer harmless requests and to refuse harmful ones, however they are worded: "
        "in a game against an Attacker that rewrites requests until the assistant gets them wrong, with AdvGame."
    ),
}

SANDBOX = (
    "It speaks the few hundred words of AdvGame's embedded sandbox, a made-up and mild world. It shows that the system "
    "works, and is of no use outside of it."
)

INTENDED: dict[Player, str] = {
    "attacker": (
        "Finding the requests that a model gets wrong, so that it can be mended: as the opponent in further training, or "
        "as a source of test cases, on models that you own or are asked in writing to test."
    ),
    "defender": (
        "Research on how models are made robust, and a starting point for a chat assistant, together with the other "
        "safeguards that such a one needs. Before it meets users, measure it on your own requests, with a judge of your own."
    ),
}

MISUSE = """\
What this model writes is made to get harmful answers out of assistants, and may itself be harmful to read.

- **Who should have it:** people who test and harden language models, in an organisation that answers for them, where
  access is granted by name and can be taken back.
- **Who should not:** anybody who would put its attacks to a system without the consent of its owner, and anybody who
  needs no attacks. Do not publish it without a gate, do not offer it as a service, do not build it into a product.
- **How to keep it:** as you keep exploit code. Keep what it writes out of logs, tickets and public data. What it finds
  in another's model, report to them first."""

GATE = (
    "This model writes attacks on language models. By asking for access you say that you will use it only to test and "
    "harden models that you own or are asked in writing to test, and that you will not pass it or its attacks on."
)

LIMITS: dict[Player, str] = {
    "attacker": (
        "- Its figures are about the Defender that it was trained against. Against other models it may do better or worse.\n"
        "- An attack that it does not find may exist: a low success rate shows nothing safe."
    ),
    "defender": (
        "- Its figures are about the two Attackers of this run and these seeds. Other attacks, other topics, other "
        "languages and conversations of more than one turn were not measured. An attack success of 0 % does not mean that "
        "it is safe.\n"
        "- It was rewarded for refusals: it may refuse more than its base does. Over-refusal above is measured on the "
        "held-out benign seeds only.\n"
        "- Knowledge and skill were not measured here; compare it with its base before you use it."
    ),
}

COMMON_LIMITS = (
    "- The judge decides what counts as an answer and as a refusal, and it errs; the intervals do not hold its errors.\n"
    "- This is one run with one random seed. Its intervals come from the number of held-out seeds, not from the spread "
    "between runs.\n"
    "- What its base has learned, biases included, is still in it."
)

JUDGES = {  # by `judge.kind`, where it needs a word
    "rules": "It knows the sandbox's world exactly, and nothing else.",
    "match": "It compares words: easy to fool, and what papers report as string matching.",
}
