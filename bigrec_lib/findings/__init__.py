"""What is said of results.

Its rooms:

    methods            every method a table may show: name, label, look, kind
    significance       intervals and paired tests
    rules              the rule that decides a claim
    evidence           what claims and analyses take from a published study
    training_sizes     NDCG@20 over training sizes, and its slope
    claims             the paper's claims: the evidence for each, and verdicts
    questions          what each claim and open question says, a line each

    differences        when a difference tells something, and in which words
    analyses           what 07 to 11 compute: a function a table
    leaderboard        the main table, and what each method in it is compared with
    sizes              what a larger LLM buys (12)
    choices            whether chosen samples beat random ones (13)
    chosen             what the chosen samples are, and how many two selections share (13)
    spaces             whether domains share a recommendation space (14)
    grounders          what cheaper ways to ground lose and save (15)
    alignment          what distances mean (16)
    costs              what quality costs: training, requests, memory (17)
    domains            who gains on which examples and data sets (18)
    simulation         simulated models of a chosen quality
    calibration        error rates of the rules on simulated studies, and power

    worked             the test examples that are worked through by hand
    commands           the command and the manifest behind every row
    tables             CSV, Markdown, LaTeX
    prose              what 01 to 11 say of their numbers, chosen by intervals
    plots              one look for every figure; the figures of 01 to 06
    figures            the figures of 07 and later
    figures_selection  those of 13
    figures_spaces     those of 14
    figures_alignment  those of 16
    alts               what each figure shows, in words, for those who do not see it

    making             with which code a study was made
    summary            the sentences that open the findings page
    front              what the findings page says
    pages              an executed notebook as a page, made safe
    site               the reader's site of a study: `index.html` and `site`
"""
