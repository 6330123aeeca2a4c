"""The sections of an evaluation: scored samples in, figures, a paragraph and tables out, for the report and the pages.

`run` opens what was written; `pass_at_k`, `separation`, `reranking`, `correlation` and their neighbours each turn a run
into figures and a paragraph that says no more than they do. None of these loads a model.
"""
