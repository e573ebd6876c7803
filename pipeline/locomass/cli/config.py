"""What a configuration may hold: config show, schema, tests, predictors."""

from __future__ import annotations

import click

from locomass.cli.options import show_keys
from locomass.cli.terminal import Terminal, output_options


@click.group("config")
def config_group() -> None:
    """What a configuration may hold."""


@config_group.command("show")
@click.option("--meta", "for_meta", is_flag=True, help="Keys of `locomass meta` instead of `locomass run`.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As a configuration with every key.")
@output_options
def config_show(for_meta: bool, as_yaml: bool, terminal: Terminal) -> None:
    """Print every key with its type, default and help."""
    from locomass.config import MetaConfig, RunConfig, describe_keys

    kind = MetaConfig if for_meta else RunConfig
    if not as_yaml:
        show_keys(describe_keys(kind), terminal)
        return
    from locomass.commands.init import document_keys

    text = document_keys(kind)
    terminal.say(text.removesuffix("\n"))
    terminal.finish(yaml=text)


@config_group.command("schema")
@click.option("--meta", "for_meta", is_flag=True, help="Schema of `locomass meta` instead of `locomass run`.")
def config_schema(for_meta: bool) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    import json

    from locomass.config import MetaConfig, RunConfig, export_schema

    click.echo(json.dumps(export_schema(MetaConfig if for_meta else RunConfig), indent=1))


@config_group.command("tests")
@output_options
def config_tests(terminal: Terminal) -> None:
    """Print the gene tests that `tests: names` accepts."""
    from locomass.gene_tests.registry import TESTS

    terminal.show_table(["test", "what it is"], [[name, test.summary] for name, test in TESTS.items()])
    terminal.finish(tests={name: test.summary for name, test in TESTS.items()})


@config_group.command("predictors")
@output_options
def config_predictors(terminal: Terminal) -> None:
    """Print the methods that `predictor: method` accepts, with what `options` may say to each."""
    from locomass.config import describe_methods

    methods = describe_methods()
    for name, text, options in methods:
        terminal.say(f"{name}\n    {text}")
        for key, kind, default, meaning in options:
            terminal.say(f"    {key.rpartition('.')[2]}  ({kind}; default {default}): {meaning}")
    found = {name: {"help": text, "options": [key for key, *_ in options]} for name, text, options in methods}
    terminal.finish(predictors=found)
