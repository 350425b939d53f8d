/// <summary>The one spelling of an address that is its key.</summary>
public sealed class AddressTests {
    public static TheoryData<string, string> Spellings => new()
    {
        { "jane@example.com", "jane@example.com" },
        { "Jane@Example.COM", "jane@example.com" },
        { "  jane@example.com\r\n", "jane@example.com" },
        { "Jane Doe <Jane@Example.com>", "jane@example.com" },
        { "\"Doe, Jane\" <jane@example.com> ", "jane@example.com" },
        { "<jane@example.com>", "jane@example.com" },
        { "< jane@example.com >", "jane@example.com" },
        { "J <x> <jane@example.com>", "jane@example.com" },
        { "jane@example.com.", "jane@example.com" },
        { "<jane@example.com.>", "jane@example.com" },
        { "jane@example.com. ", "jane@example.com" },
        { "jane@example.com .", "jane@example.com" },
        { "jane+news@example.com", "jane+news@example.com" },
        { "j.a.n.e@example.com", "j.a.n.e@example.com" },
        { "o'neil/x=y@example.com", "o'neil/x=y@example.com" },
        { "\"Jane Doe\"@Example.com", "\"jane doe\"@example.com" },
        { "\"a@b\"@example.com", "\"a@b\"@example.com" },
        { "jos\u00e9@example.com", "jos\u00e9@example.com" },
        { "JOSE\u0301@example.com", "jos\u00e9@example.com" },
        { "\u212bsa@example.com", "\u00e5sa@example.com" },
        { "a@m\u00fcnchen.example", "a@xn--mnchen-3ya.example" },
        { "a@M\u00dcNCHEN.example", "a@xn--mnchen-3ya.example" },
        { "a@mu\u0308nchen.example", "a@xn--mnchen-3ya.example" },
        { "a@XN--MNCHEN-3YA.example", "a@xn--mnchen-3ya.example" },
        { "a@m\u00fcnchen\u3002example", "a@xn--mnchen-3ya.example" },
        { "a@example\u3002com", "a@example.com" },
        { "a@m\u00fcnchen.example.", "a@xn--mnchen-3ya.example" },
        { "a@m\u00fcnchen.example\u3002", "a@xn--mnchen-3ya.example" },
        { "\u540d@\u4f8b\u3048.\u30c6\u30b9\u30c8", "\u540d@xn--r8jz45g.xn--zckzah" },
        { "a@[192.0.2.1]", "a@[192.0.2.1]" },
        { "Weird Stuff", "weird stuff" },
        { "RFC822; Jane", "rfc822; jane" },
        { "a@\u00fc..example", "a@\u00fc..example" },
        { "half\ud83d@example.com", "half\ufffd@example.com" },
        { "a\ufffeb@example.com", "a\ufffdb@example.com" },
        { "<<a@example.com>>", "a@example.com" },
        { "undisclosed-recipients:;", "undisclosed-recipients:;" },
    };

    [Theory, MemberData(nameof(Spellings))]
    public void Every_spelling_of_an_address_has_one_key(string text, string key) =>
        Assert.Equal(key, Address.Key(text));

    [Theory, MemberData(nameof(Spellings))]
    public void The_key_of_a_key_is_itself(string text, string _) =>
        Assert.Equal(Address.Key(text), Address.Key(Address.Key(text)));

    [Theory]
    [InlineData(">")]
    [InlineData("<>")]
    [InlineData("...")]
    [InlineData("Jane <>")]
    public void What_is_nothing_but_rubbish_keeps_a_key_of_its_own(string text) {
        Assert.NotEmpty(Address.Key(text));
        Assert.Equal(Address.Key(text), Address.Key(Address.Key(text)));
    }

    [Theory]
    [InlineData("a", 320, 320)]
    [InlineData("a", 321, 71)]
    [InlineData("\u00e9", 163, 320)]
    [InlineData("\u00e9", 164, 71)]
    [InlineData("a", 100_000, 71)]
    public void A_key_of_more_than_320_bytes_is_replaced_by_its_hash(string letter, int length, int bytes) {
        string text = string.Concat(Enumerable.Repeat(letter, length - "@x.com".Length)) + "@x.com";
        string key = Address.Key(text);

        Assert.Equal(bytes, System.Text.Encoding.UTF8.GetByteCount(key));
        Assert.Equal(key, Address.Key(key));
        Assert.Equal(key, Address.Key(text.ToUpperInvariant()));
        Assert.NotEqual(key, Address.Key("b" + text));
    }

    [Theory]
    [InlineData("a@example.com")]
    [InlineData("A@EXAMPLE.COM")]
    [InlineData(" Jane <a@example.com> ")]
    [InlineData("a+b@example.com")]
    [InlineData("o'neil@example.com")]
    [InlineData("a/b=c!d#e$f%g&h*i?j^k_l`m{n|o}p~q-r@example.com")]
    [InlineData("\"jane doe\"@example.com")]
    [InlineData("\"a@b\"@example.com")]
    [InlineData("jos\u00e9@example.com")]
    [InlineData("\u540d@\u4f8b\u3048.\u30c6\u30b9\u30c8")]
    [InlineData("a@m\u00fcnchen.example")]
    [InlineData("a@xn--mnchen-3ya.example")]
    [InlineData("a@sub_domain.example.com")]
    [InlineData("a@example.com.")]
    [InlineData("a@[192.0.2.1]")]
    [InlineData("a@[IPv6:2001:db8::1]")]
    public void An_address_is_an_address(string text) => Assert.True(Address.IsAddress(text));

    [Theory]
    [InlineData("")]
    [InlineData(" ")]
    [InlineData("jane")]
    [InlineData("example.com")]
    [InlineData("jane at example.com")]
    [InlineData("@example.com")]
    [InlineData("jane@")]
    [InlineData("@")]
    [InlineData("<>")]
    [InlineData("ja ne@example.com")]
    [InlineData("jane@exam ple.com")]
    [InlineData("jane@@example.com")]
    [InlineData("ja@ne@example.com")]
    [InlineData("jane@example.com,joe@example.com")]
    [InlineData("jane@example.com;joe")]
    [InlineData("jane@.example.com")]
    [InlineData("jane@example..com")]
    [InlineData("jane@-example.com")]
    [InlineData("jane@example.com/joe")]
    [InlineData("ja\u0001ne@example.com")]
    [InlineData("jane@exam\u0000ple.com")]
    [InlineData("ja\tne@example.com")]
    [InlineData("ja\nne@example.com")]
    [InlineData("ja\u200bne@example.com")]
    [InlineData("ja\u202ene@example.com")]
    [InlineData("\"\"@example.com")]
    [InlineData("ja\"ne@example.com")]
    [InlineData("ja(ne)@example.com")]
    [InlineData("jane@[example.com]")]
    [InlineData("jane@[]")]
    public void Anything_else_is_none(string text) => Assert.False(Address.IsAddress(text));

    [Theory]
    [InlineData(400, "", false)]
    [InlineData(400, "@example.com", true)]
    [InlineData(400, "@@example.com", false)]
    public void Length_alone_makes_no_address(int length, string domain, bool isAddress) =>
        Assert.Equal(isAddress, Address.IsAddress(new string('a', length) + domain));

    [Fact]
    public void Under_the_key_that_a_list_shows_an_address_is_found_again() =>
        Assert.True(Address.IsAddress(Address.Key(new string('a', 400) + "@example.com")));
}
