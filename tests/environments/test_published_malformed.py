"""Published files by hand: what is malformed is refused by line and column, numbers are read as printed."""

import pytest

from offramp.environments import CacheError
from offramp.environments.published.layouts import LAYOUTS
from offramp.environments.published.table import number, vector

LONG = "Sample_ID,Exit,Confidence,Prediction,Label\n0,0,.5,1,1\n0,1,.75,1,1\n1,0,.5,0,1\n1,1,.75,1,1\n"
VECTORS = 'tup_layer1,tup_layer2,output_labels\n"[.25, .75]","(0.5, 0.5)",1\n"[0.5, 0.5]","[1, 0]",0\n'
TOKENS = 'confidence_lis_1,predictions_lis_1,confidence_lis_2,predictions_lis_2\n"[.5]","[7]","[.5]","[8]"\n'
WORD = "Thi_layer_P,Last_layer,PProb_thi,PProb_las,True_labels\n1,1,.5,.75,1\n"
BARE = "0\t1\top_labels\n0\t1\t1\n1\t1\t0\n"


def test_the_small_files_are_sound(read):
    for content, layout in zip(
        (LONG, VECTORS, TOKENS, WORD, BARE), ("buffer_long", "splitee", "capeen", "ceebert", "uee_ucb"), strict=True
    ):
        assert read(content).report.layout == layout
    assert {known.name for known in LAYOUTS} > {"buffer_long", "splitee", "capeen", "ceebert", "uee_ucb", "isplitee"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LONG.replace("1,1,.75,1,1\n", ""), r"line 4: sample 1 has exits \[0\], allowed are \[0, 1\]: 1 is missing"),
        (LONG.replace("0,1,.75,1,1", "0,1,.75,1,0"), "line 3: .*allowed is one label for each sample"),
        (LONG + "0,0,.25,1,1\n", "line 6: .*allowed is the same as in line 2"),
        (LONG.replace(",1,.75", ",3,.75"), r"confidence of exits \[0, 3\]"),
        (LONG.replace("0,0,.5", "0,0.5,.5"), "column Exit: found '0.5', allowed is a whole number"),
        (LONG.replace("0,0,.5", "0,0,tensor(high)"), r"column Confidence: found 'tensor\(high\)'"),
        (LONG.replace(",Label", ",Truth"), r"allowed are columns \[\('Correct', 'or both', 'Prediction', 'Label'\)\]"),
        (LONG.replace("Confidence", "Conf"), "fit no layout"),
        (LONG.replace("1,0,.5,0,1", "1,0,.5,0"), "line 4: found 4 values, allowed is 5"),
        (VECTORS.replace(".75", ".5"), "line 2, column tup_layer1: .*sum to 1: softmax, not logits"),
        (VECTORS.replace(".25, .75", "-.25, 1.25"), "sum to 1: softmax, not logits"),
        (VECTORS.replace(".25, .75", ".25, .25, .5"), "line 3, column tup_layer1: .*a list of 3 probabilities"),
        (VECTORS.replace("[.25, .75]", ".25"), "column tup_layer1: found '.25', allowed is a list of numbers"),
        (VECTORS.replace(".25, .75", ".25, nan"), "a list of numbers"),
        (VECTORS.replace(".25, .75", ".25 ... .75"), "a list of numbers"),
        (VECTORS.replace("[.25, .75]", "[[.25, .75], [0, 1]]"), "a list of numbers"),
        (VECTORS.replace("[.25, .75]", "[" * 5000), "a list of numbers"),
        (VECTORS.replace("[.25, .75]", "__import__('os')"), "a list of numbers"),
        (VECTORS.replace(",1\n", ",2\n"), "column output_labels: found '2', allowed is a whole number in 0..1"),
        (VECTORS.replace("output_labels", "y"), r"allowed are columns \('tup_layer\{\}',\) and \('output_labels'"),
        (VECTORS.replace("layer1", "layer3"), None),
        (TOKENS.replace("[7]", "[7, 8]"), "column confidence_lis_1: .*a list of 2 numbers, as in predictions_lis_1"),
        (TOKENS.replace("[7]", "[7.5]"), "token numbers, whole and >= 0: found 7.5"),
        (TOKENS.replace("[7]", "[-7]"), "found -7"),
        (TOKENS.replace('"[.5]","[8]"', '"[1.5]","[8]"'), "confidences in 0..1: found 1.5"),
        (TOKENS.replace('"[.5]"', '"[1.0]"').replace('"[7]"', '"[50256]"'), "no token at which every exit speaks"),
        (TOKENS.replace("lis_2", "lis_3", 1), r"confidences of exits \[1, 3\] and predictions of \[1, 2\]"),
        (WORD.replace("Last_layer", "other"), "has prediction of exits"),
        (WORD.replace(".75", "[.5, .75]").replace("[.5, .75]", '"[.5, .75]"'), "column PProb_las"),
        (WORD.replace("True_labels", "labels"), "fit no layout"),
        (BARE.replace("1\t1\t0", "1\tx\t0"), "line 3, column 1: found 'x'"),
        (BARE.replace("1\t1\t0", "1\t1"), "line 3: found 2 values, allowed is 3"),
        (BARE.replace("0\t1\top", "0\t2\top"), r"a prediction of exits \[0, 2\]"),
    ],
)
def test_malformed_files_are_refused_by_name(read, content, message):
    if message is None:
        assert read(content).report.exits == ("layer 2", "layer 3")
        return
    with pytest.raises(CacheError, match=message):
        read(content)


def test_numbers_as_others_print_them(read):
    for cell, value in {
        "0.93": 0.93,
        " 1 ": 1.0,
        "[0.93]": 0.93,
        "tensor(0.93)": 0.93,
        "tensor([0.93], device='cuda:0')": 0.93,
        "np.float32(0.93)": 0.93,
        "array(0.93, dtype=float32)": 0.93,
    }.items():
        assert number(cell) == value, cell
    for cell in ("", "nan", "1_0", "[]", "[0.1, 0.2]", "tensor()", "0.9.3", "[[0.5]", "high", "max(1)"):
        assert number(cell) is None, cell
    for cell in ("[0.25, 0.75]", "(0.25, 0.75)", "[0.25 0.75]", "[[0.25, 0.75]]", "array([0.25, 0.75], dtype=float32)"):
        assert vector(cell).tolist() == [0.25, 0.75], cell
    for cell in ("tensor([0.25, 0.75], device='cuda:0')", "[np.float32(0.25), np.float32(0.75)]", "[0.25\n  0.75]"):
        assert vector(cell).tolist() == [0.25, 0.75], cell
    for cell in ("[0.25, true]", '["0.25"]', "[null]", "0.25, 0.75", "[0.25", "", "[1e999]", "{}"):
        assert vector(cell) is None, cell
    cache, report = read(LONG.replace(".75", "1.0000001").replace(",.5,", ",tensor(-1e-9),"))
    assert (cache.confidence[0, 0] == [[0.0, 1.0], [0.0, 1.0]]).all()
    assert report.clipped == 4
    assert "4 confidences within rounding" in str(report)


def test_layers_make_a_profile_for_the_papers_prices(read):
    cache, _ = read(WORD, layers=[3, 12])
    assert cache.profile.layers == (3, 12)
    assert read(WORD).cache.profile is None
    for layers in ([3], [12, 3], [0, 12]):
        with pytest.raises(CacheError, match="allowed are 2 whole numbers that increase"):
            read(WORD, layers=layers)
