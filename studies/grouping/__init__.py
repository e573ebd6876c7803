"""Comprehensive rare-variant grouping (Hoffmann, Marini & Witte 2010, PLoS ONE 5(11): e13584): power of its models.

    python -m studies.grouping --subset                                          # a few seconds, what CI runs
    python -m studies.grouping --processes 2 --checkpoint grouping.jsonl         # full: 500 x 500, overnight
    python -m studies.grouping --checkpoint grouping.jsonl --report              # docs/studies-grouping.md, figures
    python -m studies.grouping --haplotypes 1000 --checkpoint few.jsonl          # genes with few singletons
    python -m studies.grouping.variance                                          # empirical against model variance

A run that is killed goes on from its checkpoint; a longer one adds to a shorter one. Replicates come one after
another over all cells, so that any prefix is a balanced study.
"""
