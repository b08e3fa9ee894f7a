"""Towers that hear: what a model computes of a sound; see vision/tower.py."""
