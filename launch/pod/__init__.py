"""`podvision pod`: one command on every worker of a TPU slice, and what keeps a run alive there.

`command.py` is the command line, `verbs.py` what each verb does, `babysit.py` the loop around them.
`gcloud.py` is the only file that starts a process, `slices.py` knows the words of gcloud,
`scripts.py` what runs on the workers, `reports.py` what they answer, `verdicts.py` why a run ended.
Nothing here imports jax: it works on a laptop with Python and gcloud alone.
"""
