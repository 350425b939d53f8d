using System.Text.Json;

/// <summary>What is known of every address, kept as bytes.</summary>
public sealed class KnownAddressesTests {
    static string Json(Known? known) => JsonSerializer.Serialize(known, SnsJson.Default.Known!);

    [Fact]
    public void It_knows_what_a_dictionary_would_know_whatever_is_kept_replaced_and_forgotten() {
        var random = new Random(20261124);
        var known = new KnownAddresses();
        var expected = new Dictionary<string, Known>(StringComparer.Ordinal);
        for (int i = 0; i < 100_000; i++) {
            string address = $"j\u00e4ne{random.Next(5000)}@example.com";
            int length = random.Next(300);
            if (random.Next(4) == 0) {
                expected.Remove(address);
                known[address] = null;
            } else known[address] = expected[address] = new(random.Next(2) == 0 ? null : "bounce", Because: new('\u00e4', length));
        }
        Assert.All(Enumerable.Range(0, 5000).Select(number => $"j\u00e4ne{number}@example.com"),
            address => Assert.Equal(Json(expected.GetValueOrDefault(address)), Json(known[address])));
        Assert.Equal(expected.Values.Count(each => each.Suppressed), known.Suppressed);
        Assert.Equal(expected.Select(each => (each.Key, each.Value.Suppressed)).Order(), known.Addresses.Order());
    }

    [Fact]
    public void Every_member_of_what_is_known_comes_back() {
        var at = new DateTimeOffset(2026, 11, 24, 7, 0, 0, TimeSpan.Zero);
        var all = new Known("soft-bounces", at, "because", "event", "note", true, at, at, at, ["mail"], [new("id", at, "mail", true), new("id", at)], "soft");
        Assert.Equal(typeof(Known).GetProperties().Length - 1, JsonElement.Parse(Json(all)).EnumerateObject().Count());

        Assert.Equal(Json(all), Json(new KnownAddresses { ["jane@example.com"] = all }["jane@example.com"]));
        Assert.Equal(Json(Known.Nothing), Json(new KnownAddresses { ["jane@example.com"] = Known.Nothing }["jane@example.com"]));
    }

    [Theory]
    [InlineData("\ud83d")]
    [InlineData("\udca9\ud83d")]
    [InlineData("\0\u001f\ufffe\"\\")]
    public void Half_an_emoji_and_what_no_address_should_hold_do_no_harm(string text) {
        var known = new KnownAddresses { ["jane@example.com"] = new("bounce", Because: text, Note: text), [text] = new("manual") };
        Assert.Equal(new string([.. text.Select(each => char.IsSurrogate(each) ? '\ufffd' : each)]), known["jane@example.com"]!.Because);
        Assert.Equal("manual", known[text]!.Reason);
        Assert.Equal(2, known.Suppressed);
        Assert.Equal(2, known.Addresses.Count());
    }
}
