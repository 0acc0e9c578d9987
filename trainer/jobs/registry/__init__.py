"""Published models, and which of them is the champion.

REGISTRY/MODEL/
  versions/VERSION/          model/ (Hugging Face's layout), adapter/ (PEFT's); version.json, written last
  aliases/champion/          a numbered log (trainer/jobs/log.py): each entry moves the alias
  champion                   in a directory: a link to the version, for whoever reads paths
"""
