"""The library behind the notebooks.

Three wings beside one module; arrows run from the last to the first:

    files      whole or absent: atomic writes, locks, hashes, the error a user can act on
    method     what the study is about, from a data set to ranks and metrics
    study      what runs it: parameters, manifests, jobs, plan, batch, publication, report
    findings   what is said of results: evidence, tests, claims, tables, figures
"""
