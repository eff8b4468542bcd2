"""The file with many results."""

import pytest

from mmvanilla.analysis.result_file import ResultFile
from tests.analysis.results import made_up_result


def test_what_is_added_is_there_when_it_is_opened_again(tmp_path):
    path = tmp_path / "folder" / "results.json"
    file = ResultFile(str(path))
    assert not path.exists() and file.get("a") is None
    results = {name: made_up_result({"top1": 1.5}, None) for name in ("b", "a")}
    for name, result in results.items():
        file.add(name, result)
    again = ResultFile(str(path))
    assert {name: again.get(name) for name in results} == results
    # In order, a line for each, so that changes can be reviewed.
    assert [line[2:6] for line in path.read_text().splitlines()[1:-1]] == ['"a":', '"b":']


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"trained": 1}}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results.json does not hold the results of trainings"):
        ResultFile(str(path))
    assert path.read_text() == text
