"""The recipe of `home-mini`, the small Mistral-architecture model that comes with the project.

    lexicon/       the English the model knows: words and sentence patterns, written by hand
    phrasing.py    patterns expanded, held out, worn down as people type
    homes.py       random homes; targets.py: ways to refer to what is in them
    examples/      a question and its one right answer, by kind; splits.py: the three held-out sets
    packing.py     many questions behind one home, with the mask that keeps them apart
    tokenizer.py   byte-level BPE with Mistral's control tokens
    model.py muon.py train.py evaluate.py      torch; nothing else here needs it

`python -m edge_assistant_export.reference_model --help` runs each step.
"""
