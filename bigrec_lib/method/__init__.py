"""What the study is about.

Rooms in the order the data goes; each imports only from those above it:

    conversion     GGUF -> a Hugging Face folder
    assets         models and data: fetched once, checked by hash, unpacked safely
    values         columns as numbers, and as times of one unit
    corpus         who consumed what, and the catalogue: cleaned, filtered, numbered
    sources        files in folders, zips and gzip, read safely; text in any usual encoding
    tables         delimited text, JSON lines, Parquet -> columns as strings
    pickles        pickled tables, read without running them
    readers        one per source format -> Corpus
    sequences      Corpus -> time-ordered examples, their split, seeded samples
    census         a data set in numbers: what BIGRec and its rivals live on
    prompts        the one template; titles in and out of text
    prepared       what 01 wrote, opened
    samples        prompt + answer, encoded
    cpu            what this machine's processor can do
    llm            load an LLM with its tokenizer, quantised or not
    attention      attention that repeats no key: for beams, and for gradients on a CPU
    adapters       LoRA adapters: made, saved, loaded, averaged, compared
    processes      several processes that tune together
    losses         samples as batches, and the loss over what is learnt
    answers        how likely an LLM finds answers, and how hard they pull at it
    tuning         QLoRA instruction tuning, resumable
    beams          beam search: hypotheses, the trie of allowed answers, one step
    tree_cache     one cache for all beams of a prompt, and what each sees of it
    generation     step 1: read prompts, search, fall back to `generate`
    likelihood     the exact likelihood of every title: what the LLM itself would rank
    portions       many prompts into a file: cut, stored, resumed
    embedding      texts -> vectors, cached by content
    states         texts -> vectors of several layers, last token or mean
    l2             squared L2 distances, exact, or by one product with a bound on its rounding
    grounding      step 2: exact L2 ranks over the whole catalogue
    bm25           step 2 as GPT4Rec has it: the titles that share words with a text
    finders        which title a text stands for, by the text alone
    cheaper        texts to items without embedding or scanning everything, and what that costs
    encoders       cheaper vectors of a text: first layers, a sentence encoder, the decoder's states
    spaces         titles of several data sets as one catalogue
    metrics        ranks -> HR, NDCG
    geometry       what a space of vectors is like, beside a null; titles changed ever more
    variants       step 2 from the same texts in other spaces, by other beams
    sweeps         ranks at every γ in one pass over the distances
    reweighting    popularity and collaborative weights; every γ in one pass
    contenders     what ranks an example again at any γ without the whole catalogue
    windows        samples in numbers, for models that know no titles
    networks       GRU4Rec, Caser, SASRec, DROS
    selection      which samples to learn from: every way to choose
    surrogates     scores of samples from a small network
    baselines      statistics, and the search for every model's settings
    p5             the LLM that writes identifiers
    services       recommenders as services, and what their requests take
"""
