"""What the engine did, as numbers, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts since this process began."""

    def __init__(self) -> None:
        self.requests = self.refused = self.cancelled = 0
        self.prompt_tokens = self.cached_tokens = self.answer_tokens = 0
        self._first = [0] * (len(_BUCKETS) + 1)
        self._first_sum = 0.0
        self._writing_seconds = 0.0

    def first_token(self, seconds: float, prompt: int, cached: int) -> None:
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self._first_sum += seconds
        self._first[next((i for i, b in enumerate(_BUCKETS) if seconds <= b), len(_BUCKETS))] += 1

    def wrote(self, tokens: int, seconds: float) -> None:
        """One answer's tokens after the first, and how long they took."""
        self.answer_tokens += tokens
        self._writing_seconds += seconds

    def text(self, stats: Mapping[str, float]) -> str:
        """`stats` is what the worker says of now."""
        lines: list[str] = []

        def say(name: str, kind: str, value: float) -> None:
            lines.extend((f"# TYPE trimtab_engine_{name} {kind}", f"trimtab_engine_{name} {value:.10g}"))

        say("requests_total", "counter", self.requests)
        say("refused_total", "counter", self.refused)
        say("cancelled_total", "counter", self.cancelled)
        say("prompt_tokens_total", "counter", self.prompt_tokens)
        say("prompt_tokens_cached_total", "counter", self.cached_tokens)
        say("answer_tokens_total", "counter", self.answer_tokens)
        say("answer_seconds_total", "counter", self._writing_seconds)
        say("requests_waiting", "gauge", stats.get("waiting", 0))
        say("requests_running", "gauge", stats.get("running", 0))
        say("kv_cache_usage_ratio", "gauge", stats.get("kv_usage", 0))
        say("kv_cache_bytes", "gauge", stats.get("kv_bytes", 0))
        lines.append("# TYPE trimtab_engine_first_token_seconds histogram")
        below = 0
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self._first, strict=True):
            below += count
            lines.append(f'trimtab_engine_first_token_seconds_bucket{{le="{bound}"}} {below}')
        lines.append(f"trimtab_engine_first_token_seconds_sum {self._first_sum:.10g}")
        lines.append(f"trimtab_engine_first_token_seconds_count {below}")
        return "\n".join(lines) + "\n"
