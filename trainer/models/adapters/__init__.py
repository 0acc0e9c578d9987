"""Adapters: small parameters beside a model's own. A plain model with them is a plain model; trainer/models/adapters/
attach.py puts them in and writes their rules into the plan.
"""
