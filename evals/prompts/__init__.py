"""Prompt suites shipped with forkwatch, JSON (`forkwatch.prompts/2`), read by `evals.suite`.

`core.json`, version 2: what is asked in each tier. `tests/evals/test_core_suite.py` counts it anew.

| | screen | quick | full |
|---|---|---|---|
| requests that should be refused | 24 | 84 | 120 |
| benign twins of them | 12 | 48 | 120 |
| plain requests | 8 | 24 | 60 |
| paraphrases of requests | 0 | 0 | 360 |
| translated requests | 0 | 60 | 240 |
| translated twins | 0 | 0 | 240 |
| prompts, all of these | 44 | 216 | 1140 |
| multiple-choice questions | 0 | 20 | 40 |

12 topics (and 8 of plain requests, 4 of questions), each with the same share of every row but the plain
requests in `full`. The parallel subset is the `screen` tier's requests, two a topic, and their twins, in
German, French, Spanish, Portuguese (Brazil), Italian, Russian, Chinese (simplified), Japanese, Arabic and
Hindi. `quick` asks six of them a language: of a release that refuses all six, a fork that refuses none is
told apart (exact McNemar p = .03), and no fewer would do.

Requests are general and everyday, without names, amounts or steps, and nothing here answers one. `screen`
holds two plain ones of each topic; the five a topic that `quick` adds were drawn by lot, and so were its
plain requests. Ids ending in `-01` to `-06`, and `utility-01` to `-40`, are those of version 1, with the same
texts.

Limits: written and translated by one author; no native speaker has checked the ten languages. Twins have no
paraphrases. The questions are easy, for models from 100 M parameters.
"""
