import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aiparsing_d2
from aiparsing_d2.cli import main
from aiparsing_d2.parallel import WorkerDiedError


@pytest.fixture
def command(two_people, tmp_path):
    return ["prepare", "cihp", str(two_people.root), "--output", str(tmp_path / "out")]


def test_summary_and_files(command, tmp_path, capsys):
    assert main([*command, "--workers", "1", "--rle", "--person-maps"]) == 0
    out = capsys.readouterr().out
    assert "train: 1 image, 2 people; all are used" in out
    assert "train_id.txt: 1 image; published were 28,280" in out
    assert "Training/Instance_ids: the folder does not exist" in out
    for file in ("report.md", "annotations/CIHP_train.json", "train_parsing/0000001-4.png"):
        assert (tmp_path / "out" / file).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on-bad", "no-instances=raise"], "error: no-instances: Training/Instance_ids"),
        (["--on-bad", "count=raise"], "error: count: "),
        (["--on-bad", "explode"], "error: 'explode' is not one of name, skip, raise"),
        (["--split", "val"], "error: .* no val split"),
    ],
)
def test_fatal(command, tmp_path, capsys, options, message):
    assert main([*command, "--workers", "1", *options]) == 1
    captured = capsys.readouterr()
    assert re.match(message, captured.err.splitlines()[-1])
    assert not captured.out


def test_own_data_is_sound_without_what_only_cihp_has(command, tmp_path, capsys):
    strict = [*command, "--workers", "1", "--on-bad", "raise"]
    assert main([*strict, "count=raise", "no-instances=raise", "--own-data"]) == 0
    out = capsys.readouterr().out
    assert "Own data in CIHP's layout in" in out and "Nothing is wrong." in out
    assert (tmp_path / "out" / "annotations" / "CIHP_train.json").is_file()
    # Nothing of it is a flaw, if it is not said to be one's own.
    assert main([*strict, "--overwrite"]) == 0


def test_help_names_the_folders(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "vip", "--help"])
    words = capsys.readouterr().out.split()
    assert "the folder of Images/, Annotations/, lists/" in " ".join(words)


def test_second_call_overwrites_only_if_asked(command, capsys):
    assert main([*command, "--workers", "1"]) == 0
    assert main([*command, "--workers", "1"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--workers", "1", "--overwrite"]) == 0


def test_archive(tmp_path, capsys):
    archive = tmp_path / "LV-MHP-v2.zip"
    archive.write_bytes(b"PK")
    assert main(["prepare", "lv_mhp_v2", str(archive), "--output", str(tmp_path / "out")]) == 1
    assert f"{archive} is an archive: unpack it first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_interruption(command, capsys, monkeypatch):
    def interrupt(request):
        raise KeyboardInterrupt

    monkeypatch.setattr("aiparsing_d2.preparation.prepare_data_set", interrupt)
    assert main(command) == 130
    assert "goes on from here" in capsys.readouterr().err

    def lose_a_worker(request):
        raise WorkerDiedError("Use fewer workers.")

    monkeypatch.setattr("aiparsing_d2.preparation.prepare_data_set", lose_a_worker)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error == "error: Use fewer workers. The same command goes on from here.\n"


def test_kinds_can_be_listed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["prepare", "vip", "--list-kinds"])
    assert end.value.code == 0
    assert "unexpected-frame (note)" in capsys.readouterr().out


def test_lv_mhp_v2_has_person_maps_already(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "lv_mhp_v2", "ROOT", "--output", "DIR", "--person-maps"])
    assert "--person-maps" in capsys.readouterr().err


def test_process_of_its_own_without_torch(command, tmp_path, two_people, category_map, human_map):
    for number in range(2, 11):  # more than one process looks through at once
        two_people.add(f"{number:07d}", category_map, human_map)
    script = tmp_path / "without_torch.py"
    script.write_text(
        "import sys\n"
        "sys.modules['torch'] = sys.modules['detectron2'] = None\n"
        "if __name__ == '__main__':\n"
        "    from aiparsing_d2.cli import main\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    done = run_python(str(script), *command, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "train: 10 images, 20 people; all are used" in done.stdout
    done = run_python("-m", "aiparsing_d2", "--help")
    assert "prepare" in done.stdout and "evaluate" in done.stdout, done.stderr


def run_python(*arguments):
    root = Path(aiparsing_d2.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )
