"""What is said of results.

methods        every method a table may show: name, label, look, kind
significance   intervals and paired tests
rules          the rule that decides a claim
evidence       what claims and analyses take from a published study
claims         the paper's claims: the evidence for each, and verdicts
analyses       what the notebooks from 07 on compute: a function a table
grounders      what cheaper ways to ground lose and save
costs          what quality costs: training, requests, memory
domains        who gains on which examples and data sets
choices        whether chosen samples beat random ones
leaderboard    the main table, and what every method in it is held against
commands       the command and the manifest behind every row
tables         CSV, Markdown, LaTeX
calibration    simulated studies: error rates of the rules, and power
questions      what each claim and open question says, a line each
front          what the findings page says
pages          an executed notebook as a page, made safe
site           the reader's site of a study: `index.html` and `site`
worked         the test examples that are worked through by hand
prose          what the notebooks say of their numbers, chosen by intervals
plots          one look for every figure; the figures of 01 to 06
spaces         whether domains share a recommendation space
figures        the figures of 07 and later
alts           what each figure shows, in words, for those who do not see it
figures_spaces the figures of 14
figures_selection  those of 13
"""
