"""`evaluate`: models asked the prompts of suites, their answers judged, and what comes of it counted with intervals.

`attempts` and `table` are pure, and so is `breaker`. `journal` keeps what was answered, `asking` and `judging` are the shells that
ask, `utility` calls lm-eval, `report` writes and shows, `evaluate` puts them in order.
"""
