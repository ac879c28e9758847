"""What may be passed as rows, what comes back, and what is refused."""

import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.metrics import two_sample_auc, w2_distance
from sknsgf.networks import NetworkSpec, VelocityMLP, describe_network
from sknsgf.plotting import plot_images, plot_particles
from sknsgf.samplers._source import UserSource
from sknsgf.samplers._units import Units

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 2))
Y = rng.uniform(size=(50, 2)) + 5


def quick(sampler=NSGFSampler):
    return sampler(max_iter=5, hidden_layer_sizes=(16,), random_state=0)


@pytest.fixture(scope="module", params=[NSGFSampler, NSGFPlusPlus])
def fitted(request):
    return quick(request.param).fit(X, Y)


def read_only_memmap(tmp_path):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


class TestSameValuesSameResult:
    @pytest.mark.parametrize(
        "give",
        [
            np.asfortranarray,
            lambda X: np.repeat(X, 2, axis=0)[::2],
            lambda X: X.tolist(),
            lambda X: X.astype(object),
            pd.DataFrame,
            pl.DataFrame,
            np.ma.array,
            torch.from_numpy,
        ],
        ids="fortran strided list object pandas polars masked torch".split(),
    )
    def test_in_another_container(self, fitted, give):
        expected = fitted.transform(X)
        np.testing.assert_array_equal(fitted.transform(give(X)), expected)
        again = quick(type(fitted)).fit(give(X), X_target=give(Y))
        np.testing.assert_array_equal(again.transform(X), expected)

    def test_from_a_read_only_memory_map(self, fitted, tmp_path):
        mapped = read_only_memmap(tmp_path)
        np.testing.assert_array_equal(fitted.transform(mapped), fitted.transform(X))
        again = quick(type(fitted)).fit(mapped, Y)
        np.testing.assert_array_equal(again.transform(mapped), fitted.transform(X))
        assert fitted.transform(mapped, domain="target").flags.writeable

    @pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, bool])
    def test_as_integers(self, fitted, dtype):
        whole = (X > 0).astype(dtype)
        moved = fitted.transform(whole)
        assert moved.dtype == np.float64
        np.testing.assert_array_equal(moved, fitted.transform(whole.astype(float)))

    def test_in_half_precision(self, fitted):
        half = X.astype(np.float16)
        assert fitted.transform(half).dtype == np.float64
        np.testing.assert_array_equal(fitted.transform(half), fitted.transform(half.astype(float)))


class TestTensors:
    @pytest.mark.parametrize("method", ["transform", "inverse_transform"])
    @pytest.mark.parametrize(
        "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    )
    def test_device_and_precision_are_kept(self, fitted, method, dtype, device):
        x = torch.from_numpy(X).to(device, dtype)
        moved = getattr(fitted, method)(x)
        assert (moved.device, moved.dtype, moved.shape) == (x.device, dtype, x.shape)
        expected = getattr(fitted, method)(x.cpu().double().numpy())
        tolerance = 4 * torch.finfo(dtype).eps * np.abs(expected).max() + 1e-5
        np.testing.assert_allclose(moved.cpu().double().numpy(), expected, atol=tolerance, rtol=0)

    def test_integers_become_floats(self, fitted):
        assert fitted.transform(torch.ones(3, 2, dtype=torch.int64)).dtype == torch.float64

    def test_views_and_gradients(self, fitted):
        x = torch.from_numpy(X)
        for view in (x.T.contiguous().T, x.clone().requires_grad_()):
            moved = fitted.transform(view)
            assert not moved.requires_grad
            np.testing.assert_array_equal(moved, fitted.transform(X))

    def test_rows_of_the_target_stay_what_they_are(self, fitted):
        x = torch.from_numpy(Y).bfloat16()
        same = fitted.transform(x, domain="target")
        assert same.dtype == x.dtype and (same == x).all() and same is not x


class TestRefused:
    @pytest.mark.parametrize(
        ("rows", "error", "message"),
        [
            (np.where(X > 1, np.nan, X), ValueError, "NaN; impute"),
            (np.where(X > 1, None, X), ValueError, "NaN; impute"),
            (pd.DataFrame(X).mask(X > 1, pd.NA).convert_dtypes(), ValueError, "NaN; impute"),
            (np.where(X > 1, -np.inf, X), ValueError, "infinity; clip"),
            (np.where(X > 1, np.longdouble(10) ** 400, X), ValueError, "infinity; clip"),
            (X * 1j, ValueError, "Complex"),
            (torch.from_numpy(X * 1j), ValueError, "Complex"),
            (X.astype(str), ValueError, "numeric values, got dtype <U"),
            (np.where(X > 0, "1", X.astype(object)), ValueError, "got text.*encode categories"),
            (pd.DataFrame(X.astype(str)), ValueError, "numeric values"),
            (pl.DataFrame(X.astype(str)), ValueError, "numeric values"),
            (np.array(X * 1e9, "datetime64[s]"), ValueError, "datetime64"),
            (np.array([[{}, 1.0]] * 3), TypeError, "argument must be"),
            (np.ma.masked_greater(X, 1), ValueError, "masked entries.*fill or drop"),
            (sparse.csr_matrix(X), TypeError, "[Ss]parse"),
            (sparse.coo_array(X), TypeError, "[Ss]parse"),
            (torch.from_numpy(X).to_sparse(), TypeError, "to_dense"),
            (X[:0], ValueError, "0 sample"),
            (X[:, :0], ValueError, "0 feature"),
            (X[:, 0], ValueError, "reshape"),
            (X.reshape(30, 2, 2), ValueError, "reshape"),
            (7.0, ValueError, "2D array"),
            ([[1.0, 2.0], [3.0]], ValueError, "inhomogeneous"),
        ],
        ids=range(23),
    )
    def test_unusable_rows_by_the_name_of_the_array(self, fitted, rows, error, message):
        with pytest.raises(error, match=f"(?s)X_source.*{message}"):
            quick().fit(rows, Y)
        if getattr(rows, "ndim", 2) != 1:  # a single dimension is taken for labels, and said so
            with pytest.raises(error, match=f"(?s)X_target.*{message}"):
                quick().fit(X, X_target=rows)
        for method in (fitted.transform, fitted.inverse_transform):
            with pytest.raises(error, match=f"(?s)X .*{message}"):
                method(rows)

    def test_a_single_row_is_too_few_to_fit_and_enough_to_move(self, fitted):
        with pytest.raises(ValueError, match=r"X_source.*1 sample"):
            quick().fit(X[:1], Y)
        with pytest.raises(ValueError, match=r"X_target.*1 sample"):
            quick().fit(X, Y[:1])
        assert fitted.transform(X[:1]).shape == (1, 2)

    def test_a_single_column_is_enough(self):
        assert quick().fit(X[:, :1], Y[:, :1]).sample(3).shape == (3, 1)


# Whatever takes rows: the name it knows them by, and how it gets them.
GATES = {
    "transform": ("X", lambda flow, rows: flow.transform(rows)),
    "fit": ("X_source", lambda flow, rows: quick().fit(rows, Y)),
    "fit a target": ("X_target", lambda flow, rows: quick().fit(X, X_target=rows)),
    "score": ("X_target", lambda flow, rows: flow.score(X, X_target=rows)),
    "w2": ("Y", lambda flow, rows: w2_distance(X, rows)),
    "auc": ("X", lambda flow, rows: two_sample_auc(rows, Y)),
    "particles": ("X", lambda flow, rows: plot_particles(rows)),
    "images": ("X", lambda flow, rows: plot_images(rows, (1, 1, 2))),
}
every_gate = pytest.mark.parametrize(("name", "give"), GATES.values(), ids=GATES)


@pytest.fixture(scope="module")
def flow():
    return quick().fit(X, Y)


class TestOneGate:
    """Samplers, metrics and pictures judge rows alike, column by column, in the same words."""

    @every_gate
    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (pd.date_range("2020", periods=60), "got dtype datetime64"),
            (pd.date_range("2020", periods=60).tz_localize("UTC"), "got dtype datetime64"),
            (pd.timedelta_range("1h", periods=60), "got dtype timedelta64"),
            (pd.period_range("2020", periods=60), "got dtype period"),
            (["1.5"] * 60, "got (dtype (str|object)|text)"),
            (pd.Categorical([1, 2] * 30), "got dtype category"),
            (pd.array([1, None] * 30, dtype="Int64"), "contains NaN; impute missing values"),
            (pd.array([1.5, None] * 30, dtype="Float64"), "contains NaN; impute missing values"),
            (pd.array([True, None] * 30, dtype="boolean"), "contains NaN; impute missing values"),
            ([1, pd.NA] * 30, "contains NaN; impute missing values"),
            ([1.0, np.inf] * 30, "contains infinity; clip"),
        ],
        ids=range(11),
    )
    def test_a_column_that_holds_no_numbers_is_named(self, flow, name, give, column, message):
        frame = pd.DataFrame({"a": X[:, 0], "when": column})
        with pytest.raises(ValueError, match=f"Column 'when' of {name} .*{message}"):
            give(flow, frame)

    @every_gate
    @pytest.mark.parametrize(
        "column",
        [
            pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 2, 29), eager=True),
            pl.Series(["1.5"] * 60),
            pl.Series(["u"] * 60, dtype=pl.Categorical),
            pl.Series([1, None] * 30),
            pl.Series([True, None] * 30),
            pl.Series([[1.0]] * 60),
        ],
        ids=lambda column: str(column.dtype),
    )
    def test_of_polars_too(self, flow, name, give, column):
        with pytest.raises(ValueError, match=f"Column 'when' of {name}"):
            give(flow, pl.DataFrame({"a": X[:, 0], "when": column}))

    @every_gate
    def test_masked_entries_are_refused(self, flow, name, give):
        with pytest.raises(ValueError, match=f"{name} has masked entries.*fill or drop"):
            give(flow, np.ma.masked_greater(X, 1))

    @pytest.mark.parametrize(
        "column",
        [
            pd.array([1, 0] * 30, dtype="Int64"),
            pd.array([1.0, 0.0] * 30, dtype="Float64"),
            pd.array([True, False] * 30, dtype="boolean"),
            pd.arrays.SparseArray([1.0, 0.0] * 30),
            [Decimal(1), Fraction(0)] * 30,
            np.array([True, False] * 30, dtype=object),
            pl.Series([True, False] * 30),
            pl.Series(["1", "0"] * 30).cast(pl.Decimal(10, 2)),
            pl.Series([1, 0] * 30, dtype=pl.UInt8),
        ],
        ids=range(9),
    )
    def test_numbers_of_any_kind_are_numbers(self, fitted, column):
        library = pl if isinstance(column, pl.Series) else pd
        frame = library.DataFrame({"a": X[:, 0], "b": column})
        plain = np.column_stack([X[:, 0], [1.0, 0.0] * 30])
        np.testing.assert_array_equal(fitted.transform(frame), fitted.transform(plain))
        assert w2_distance(frame, plain) == 0

    def test_columns_of_one_name_are_all_looked_at(self, fitted):
        twice = pd.DataFrame(np.where(X > 1, np.nan, X), columns=["a", "a"])
        for frame in (twice, twice.assign(b=0.0)[["a"]]):
            with pytest.raises(ValueError, match="Column 'a' of X contains NaN"):
                fitted.transform(frame)

    def test_arrow(self, fitted):
        pa = pytest.importorskip("pyarrow")
        table = pa.table({"a": X[:, 0], "b": X[:, 1]})
        np.testing.assert_array_equal(fitted.transform(table), fitted.transform(X))
        kinds = {"date": pd.date_range("2020", periods=60).date, "null": [1.0, None] * 30}
        kinds |= {"text": ["1"] * 60, "dictionary": pa.array(["u"] * 60).dictionary_encode()}
        for kind, column in kinds.items():
            with pytest.raises(ValueError, match=f"Column '{kind}' of X"):
                fitted.transform(pa.table({"a": X[:, 0], kind: column}))
        backed = pd.DataFrame(X, columns=["a", "b"]).convert_dtypes(dtype_backend="pyarrow")
        np.testing.assert_array_equal(fitted.transform(backed), fitted.transform(X))
        with pytest.raises(ValueError, match=r"Column '[ab]' of X contains NaN"):
            fitted.transform(backed.mask(backed > 1))

    def test_metrics_take_frames_and_tensors(self, device):
        frame = pd.DataFrame(X, columns=["a", "b"])
        assert w2_distance(frame, pl.DataFrame({"a": X[:, 0], "b": X[:, 1]})) == 0
        for other in (frame[["b", "a"]], frame.rename(columns={"a": "z"})):
            with pytest.raises(ValueError, match=r"X has the columns.*but Y has.*same order"):
                w2_distance(frame, other)
        x = torch.from_numpy(X).to(device)
        assert w2_distance(x.requires_grad_(), frame) == 0
        half = x.bfloat16()
        assert w2_distance(half, half.float().detach().cpu().numpy()) == 0

    def test_an_error_of_any_class_is_told(self):
        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__(one, two)

        class Unconvertible:
            def __array__(self, dtype=None, copy=None):
                raise Odd("no", "way")

        with pytest.raises(ValueError, match=r"X cannot be made an array of numbers.*no.*way"):
            w2_distance(Unconvertible(), X)


class TestMisuse:
    def test_a_second_array_of_two_dimensions_is_the_target_and_that_is_said(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = quick().fit(X, Y).transform(X)
            quick().fit_transform(X, X_target=Y)
        with pytest.warns(UserWarning, match=r"y has two dimensions.*X_target=y"):
            np.testing.assert_array_equal(quick().fit_transform(X, Y), expected)

    def test_data_moved_as_noise_are_told_of(self):
        generator = quick().set_params(source="gaussian")
        with pytest.warns(UserWarning, match=r"as if they were noise.*fit and sample"):
            make_pipeline(generator, StandardScaler()).fit(Y)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*as if they were noise")
            generator.fit(Y).transform(X)
            make_pipeline(StandardScaler(), generator).fit(Y)
            np.testing.assert_array_equal(generator.fit_transform(Y, domain="target"), Y)

    def test_a_missing_target_of_a_score_is_one_of_score(self, fitted):
        with pytest.raises(ValueError, match=r"missing.*score\(X_source, X_target\)") as error:
            fitted.score(X)
        assert "fit" not in str(error.value)


class Given:
    """A source whose rows are given."""

    def __init__(self, rows):
        self.rows = rows

    def sample(self, n):
        return self.rows(n)


class TestSources:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (pd.DataFrame(X), r"source is a dataframe.*fit\(X_source, X_target\)"),
            (torch.distributions.Normal(torch.zeros(2), 1.0), r"sample\(\(n,\)\)"),
            (GaussianMixture(), "failed with NotFittedError.*FrozenEstimator"),
            (Given(lambda n: 1 / 0), r"source.sample\(2\) failed with ZeroDivisionError"),
            (Given(lambda n: np.zeros((n, 3))), r"source.sample\(2\) must have shape \(2, 2\)"),
            (Given(lambda n: np.full((n, 2), np.nan)), r"source.sample\(2\) contains NaN"),
            (Given(lambda n: np.full((n, 2), "1")), r"source.sample\(2\) must hold numeric"),
        ],
        ids=range(7),
    )
    def test_that_cannot_be_one_are_refused_before_any_work(self, source, message):
        for sampler in (NSGFSampler, NSGFPlusPlus):
            with pytest.raises(ValueError, match=f"(?s){message}"):
                quick(sampler).set_params(source=source, max_iter=10**9).fit(Y)

    def test_trying_one_out_leaves_its_state_alone(self):
        class Stateful:
            def __init__(self):
                self.rng = np.random.default_rng(0)

            def sample(self, n):
                return self.rng.normal(size=(n, 2))

        source = Stateful()
        UserSource(source, Units.of(Y)).try_out()
        np.testing.assert_array_equal(source.sample(3), Stateful().sample(3))


class TestColumnNames:
    frame = pd.DataFrame(X, columns=["a", "b"])

    @pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
    def test_both_arrays_must_agree(self, library):
        frame = library.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        flow = quick().fit(frame, X_target=frame)
        swapped = frame[["b", "a"]]
        with pytest.raises(
            ValueError, match=r"X_target has \['b', 'a'\].*X_target\[\['a', 'b'\]\]"
        ):
            quick().fit(frame, X_target=swapped)
        other = library.DataFrame({"c": X[:, 0], "b": X[:, 1]})
        with pytest.raises(ValueError, match=r"X_target has \['c', 'b'\].*rename"):
            quick().fit(frame, X_target=other)
        for method in (flow.transform, flow.inverse_transform, flow.trajectory):
            with pytest.raises(ValueError, match="feature names"):
                method(swapped)
        with pytest.raises(ValueError, match="feature names"):
            flow.score(swapped, X_target=frame)
        with pytest.raises(ValueError, match=r"X_target has \['b', 'a'\]"):
            flow.score(frame, X_target=swapped)

    def test_a_target_is_held_to_the_names_fitted(self):
        flow = quick().fit(self.frame, Y)
        with (
            pytest.raises(ValueError, match=r"X_target has \['b', 'a'\]"),
            pytest.warns(UserWarning, match="valid feature names"),
        ):
            flow.score(X, X_target=self.frame[["b", "a"]])


class TestParameters:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"n_steps": True}, "n_steps must not be a boolean"),
            ({"blur": np.True_}, "blur"),
            ({"max_iter": "100"}, "max_iter"),
            ({"hidden_layer_sizes": (True,)}, "positive integers"),
            ({"network": torch.nn.Linear}, r"network\(\(2,\)\) failed.*shape of a row"),
            ({"learning_rate": "0.1"}, "learning_rate"),
            ({"random_state": False}, "random_state must not be a boolean"),
            ({"source": NSGFSampler}, r"source is the class NSGFSampler.*NSGFSampler\(\.\.\.\)"),
        ],
        ids=str,
    )
    def test_of_a_misleading_kind(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            quick().set_params(**parameters).fit(X, Y)

    def test_a_flow_class_in_place_of_a_flow(self):
        with pytest.raises(ValueError, match="sinkhorn_flow is the class"):
            NSGFPlusPlus(sinkhorn_flow=NSGFSampler).fit(X, Y)

    @pytest.mark.parametrize("sampler", [NSGFSampler, NSGFPlusPlus])
    def test_a_width_is_one_layer(self, sampler):
        one, same = quick(sampler).set_params(hidden_layer_sizes=16), quick(sampler)
        expected = same.fit(X, Y).transform(X)
        np.testing.assert_array_equal(one.fit(X, Y).transform(X), expected)
        spec = NetworkSpec(2, hidden_layer_sizes=16)
        assert spec.hidden_layer_sizes == (16,)
        assert describe_network(VelocityMLP(2, 16)) == describe_network(spec.make(seed=0))

    def test_a_device_of_another_name(self):
        with pytest.raises(ValueError, match=r'no device of that name.*"auto" or "cuda"'):
            quick().set_params(device="gpu").fit(X, Y)

    def test_switches_may_be_booleans(self):
        quick().set_params(early_stopping=np.True_, verbose=False, max_iter=50).fit(X, Y)

    @pytest.mark.parametrize("t", [float("nan"), -0.1, 1.1, float("inf")])
    def test_times_that_are_none(self, t):
        flow = quick().fit(X, Y)
        with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
            flow.velocity(t, X)
        for none in (None, "0", True, [0.5], np.array([0.5])):
            with pytest.raises(TypeError, match="t must be a number"):
                flow.velocity(none, X)

    def test_what_no_number_of_samples_is(self, fitted):
        for n_samples in (True, 0, -1, 2.5, "3", None, 10**400):
            with pytest.raises(ValueError, match="n_samples must be a positive integer"):
                fitted.sample(n_samples)
        for random_state in (True, -1, 1.5, "seed", np.random.default_rng(0)):
            with pytest.raises(ValueError, match="random_state must be None, an integer"):
                fitted.sample(2, random_state=random_state)

    def test_domain(self, fitted):
        with pytest.raises(ValueError, match='"source" or "target", got \'X\''):
            fitted.transform(X, domain="X")
        with pytest.raises(ValueError, match="domain"):
            quick().fit_transform(X, Y, domain=["source"])
