"""Figures of the page as SVG, in the colours of its theme."""
