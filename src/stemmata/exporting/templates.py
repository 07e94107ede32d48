"""Templates: the parts of an exported script that no record changes."""

OPTIONS = """
def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        {base},
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        {data},
        help="what to train on: .jsonl, .csv, .parquet or .txt, a folder of save_to_disk, a name on the hub",
    )
    parser.add_argument("--eval-data", metavar="FILE", help="what to evaluate on; else nothing is evaluated")
    parser.add_argument("--output", metavar="DIR", default="out", help="where to save")
    parser.add_argument("--max-steps", metavar="N", type=int, help="stop after N steps, to try it")
    return parser.parse_args()
"""
DATA = '''
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def read(source, part):
    """The rows of a file, of a folder, or of a dataset on the hub."""
    path = Path(source)
    if path.is_dir():
        rows = load_from_disk(source)
    elif path.is_file():
        if path.suffix not in READERS:
            sys.exit(f"{source}: rows are read from {', '.join(READERS)}, or a folder of save_to_disk")
        rows = load_dataset(READERS[path.suffix], data_files=source, split="train")
    elif path.suffix in READERS or path.is_absolute():
        sys.exit(f"{source}: there is no such file")
    else:
        rows = load_dataset(source)
    if isinstance(rows, DatasetDict):
        rows = rows["train" if part == "train" or "test" not in rows else "test"]
    if ROWS[part] not in (None, len(rows)):
        print(f"note: the run had {ROWS[part]} rows ({part}), {source} has {len(rows)}", file=sys.stderr)
    return rows
'''
TOKENS = '''
def tokens(rows, tokenizer):
    """Rows with input_ids as they are; of others the text, cut where the model's limit is."""
    if rows is None or "input_ids" in rows.column_names:
        return rows
    texts = [name for name, kind in rows.features.items() if getattr(kind, "dtype", None) == "string"]
    if not texts:
        sys.exit(f"the data has neither input_ids nor a column of text: {{', '.join(rows.column_names)}}")
    column = "text" if "text" in texts else texts[0]
    gone = [name for name in rows.column_names if name not in ("label", "labels")]

    def made(batch):
        return tokenizer(batch[column], truncation=True)

    return rows.map(made, batched=True, remove_columns=gone)


def collator(rows, tokenizer):
    if "labels" in rows.column_names and isinstance(rows[0]["labels"], list):
        return DataCollatorForSeq2Seq(tokenizer)
    return {collator}
'''
RAW = '''
def tokens(rows, tokenizer):
    """The rows as they are: they must be what the model takes."""
    absent = [name for name in COLUMNS if rows is not None and name not in rows.column_names]
    if absent:
        sys.exit(
            "how rows were made ready for {architecture} was not recorded: give --data as a folder of"
            f" save_to_disk whose rows have {{', '.join(absent)}}"
        )
    return rows


def collator(rows, tokenizer):
    names = rows.column_names
    if "labels" in names and "input_ids" in names and isinstance(rows[0]["labels"], list):
        return DataCollatorForSeq2Seq(tokenizer)
    return default_data_collator
'''
REPOSITORY = '''
def stored(version):
    """The folder of a version's files, out of the repository ($STEMMATA_REPO, or .stemmata here or above)."""
    import stemmata

    return str(stemmata.open()[version].path())
'''
MAIN = """
def main():
    options = parse_options()
    train = read(options.data, "train")
    evaluation = read(options.eval_data, "eval") if options.eval_data else None
    arguments = training_arguments(options)
    if options.max_steps is not None:
        arguments["max_steps"] = options.max_steps
    if evaluation is None and arguments.get("eval_strategy", "no") != "no":
        print("note: the run evaluated too; nothing is evaluated without --eval-data", file=sys.stderr)
        if arguments.get("lr_scheduler_type") == "reduce_lr_on_plateau":
            sys.exit("the learning rate follows the evaluation: give --eval-data")
        arguments.update(eval_strategy="no", eval_on_start=False, load_best_model_at_end=False)
        if arguments.get("save_strategy") == "best":
            del arguments["save_strategy"]
    set_seed(SEED)
    model, tokenizer = load_model(options)
{adapter}{ready}    trainer = {trainer}(
{given}
    )
    trainer.train()
    trainer.save_model(options.output)
    print(f"saved in {{options.output}}")


if __name__ == "__main__":
    main()
"""
