"""Figures of a model, as everything that measures gives them and every card and table reads them."""
