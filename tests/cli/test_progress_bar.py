"""The bar of long commands."""

from aiparsing_d2.cli.progress_bar import progress_bar


def test_the_bar_tells_how_many_have_failed(capsys):
    with progress_bar(5, "Parsing", "picture") as bar:
        bar.advance(2)
        assert "failed" not in str(bar)
        bar.advance(num_failed=1)
        bar.advance(2, num_failed=1)
    assert "5/5" in str(bar) and ", 2 failed]" in str(bar)
    assert ", 2 failed]" in capsys.readouterr().err
    with progress_bar(1, "Parsing", "picture", is_shown=False) as bar:
        bar.advance(num_failed=1)
    assert capsys.readouterr().err == ""
