"""What was spent, what requests under way may still cost, and whether one more fits under the cap."""

from __future__ import annotations

from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.messages import Usage


class Budget:
    """Counts tokens; money is computed from them with the prices of the recipe.

    Attributes:
        spent: of replies that came.
        uncertain: at most, of requests that were sent and whose reply was lost: they may have been charged.
        pending: at most, of requests under way.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self.spent, self.uncertain, self.pending = Usage(), Usage(), Usage()

    def reserve(self, most: Usage) -> bool:
        """Count a request as under way, unless the cap might be passed with it."""
        if not self.fits(most):
            return False
        self.pending += most
        return True

    def fits(self, most: Usage) -> bool:
        """Whether the cap holds even if this, all under way and all that was lost is charged in full."""
        worst = self.spent + self.uncertain + self.pending + most
        money, tokens = self._config.max_cost, self._config.max_total_tokens
        return (money is None or self.cost(worst) <= money) and (
            tokens is None or worst.total <= tokens
        )

    def settle(self, reserved: Usage, used: Usage) -> None:
        """A reply came."""
        self._release(reserved)
        self.spent += used

    def lose(self, reserved: Usage) -> None:
        """No reply came, and nobody knows whether the endpoint charges for it."""
        self._release(reserved)
        self.uncertain += reserved

    def cancel(self, reserved: Usage) -> None:
        """The endpoint refused the request, which costs nothing."""
        self._release(reserved)

    def cost(self, usage: Usage) -> float:
        """In the currency of the prices; 0 without prices."""
        prices = self._config.input_price or 0.0, self._config.output_price or 0.0
        return (usage.input * prices[0] + usage.output * prices[1]) / 1e6

    @property
    def has_prices(self) -> bool:
        return None not in (self._config.input_price, self._config.output_price)

    def _release(self, reserved: Usage) -> None:
        self.pending += Usage(-reserved.input, -reserved.output)
