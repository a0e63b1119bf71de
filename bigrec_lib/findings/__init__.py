"""What is said of results.

methods        every method a table may show: name, label, look, kind
significance   intervals and paired tests
rules          the rule that decides a claim
evidence       what claims and analyses take from a published study
claims         the paper's claims: the evidence for each, and verdicts
analyses       what the notebooks from 07 on compute: a function a table
grounders      what cheaper ways to ground lose and save
choices        whether chosen samples beat random ones
leaderboard    the main table, and what every method in it is held against
tables         CSV, Markdown, LaTeX
calibration    simulated studies: error rates of the rules, and power
plots          one look for every figure; the figures of 01 to 06
figures        the figures of 07 and later
figures_selection  those of 13
"""
