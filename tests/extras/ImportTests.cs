using System.Text;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;

/// <summary>POST /suppressed: lists of other providers, SES's, and one's own.</summary>
public sealed class ImportTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    static async Task<(int Status, JsonElement Json)> PostAsync(ReceiverApp app, byte[] body, string query = "") {
        using var response = await app.Private.PostAsync("/suppressed" + query, new ByteArrayContent(body), Cancellation);
        return ((int)response.StatusCode, JsonElement.Parse(await response.Content.ReadAsStringAsync(Cancellation)));
    }

    static Task<(int Status, JsonElement Json)> PostAsync(ReceiverApp app, string body, string query = "") =>
        PostAsync(app, Encoding.UTF8.GetBytes(body), query);

    /// <summary>`added/already`, and the skipped lines with why.</summary>
    static async Task<string> ImportAsync(ReceiverApp app, string body, string query = "") => Told(await PostAsync(app, body, query));

    static string Told((int Status, JsonElement Json) answer) {
        Assert.Equal(200, answer.Status);
        string skipped = string.Concat(answer.Json.GetProperty("skipped").EnumerateArray()
            .Select(each => $" {each.GetProperty("line")}: {each.GetProperty("why").GetString()}"));
        return $"{answer.Json.GetProperty("added")}/{answer.Json.GetProperty("already")}{skipped}";
    }

    /// <summary>What is suppressed, as `address reason date note`.</summary>
    static async Task<string[]> ListAsync(ReceiverApp app) => [.. (await app.GetAsync("/suppressed")).Json.GetProperty("suppressed").EnumerateArray()
        .Select(each => $"{each.GetProperty("address").GetString()} {each.GetProperty("reason").GetString()} {each.GetProperty("since").GetString()![..10]} "
            + each.GetProperty("note").GetString()).Select(text => text.TrimEnd())];

    [Fact]
    public async Task Plain_lines_are_suppressed_by_hand_and_posting_them_again_adds_nothing() {
        await using var app = await ReceiverApp.StartAsync();
        const string List = "\ufeffJane@Example.com\r\n\r\n  Joe <joe@example.com>\r\nnobody\r\n\"Doe, Ann\" <ann@example.com>\r\n\"o b\"@example.com\r\njane@example.com";

        Assert.Equal("4/1 4: no address", await ImportAsync(app, List));
        Assert.Equal("0/5 4: no address", await ImportAsync(app, List));
        Assert.Equal(["\"o b\"@example.com manual 2026-11-24", "ann@example.com manual 2026-11-24", "jane@example.com manual 2026-11-24",
            "joe@example.com manual 2026-11-24"], await ListAsync(app));
    }

    [Theory]
    [InlineData("")]
    [InlineData(" \r\n\n")]
    [InlineData("\ufeff")]
    [InlineData("[]")]
    [InlineData("{}")]
    [InlineData("""{"SuppressedDestinationSummaries":[]}""")]
    [InlineData("address,reason\n")]
    public async Task An_empty_list_adds_nothing(string body) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("0/0", await ImportAsync(app, body));
    }

    // The headers as each of them exports; dates in each one's way.
    [Theory]
    [InlineData("Mailgun's bounces", "address,code,error,created_at\na@example.com,550,\"5.1.1 no, such user\",\"Fri, 21 Oct 2011 11:02:55 UTC\"\n", "bounce 2011-10-21 5.1.1 no, such user")]
    [InlineData("Mailgun's unsubscribes", "address,tags,created_at\na@example.com,*,2024-03-01T10:00:00Z\n", "unsubscribe 2024-03-01")]
    [InlineData("SendGrid's bounces", "status,reason,email,created\n5.1.1,\"550 5.1.1 user\nunknown\",a@example.com,1449953655\n", "bounce 2015-12-12 550 5.1.1 user\nunknown")]
    [InlineData("SendGrid's invalid addresses", "reason,email,created\nMail domain mentioned in email address is unknown,a@example.com,1449953655\n", "bounce 2015-12-12 Mail domain mentioned in email address is unknown")]
    [InlineData("SendGrid's spam reports", "email,created,ip\na@example.com,1449953655,192.0.2.1\n", "complaint 2015-12-12")]
    [InlineData("Postmark's hard bounces", "EmailAddress,SuppressionReason,Origin,CreatedAt\na@example.com,HardBounce,Recipient,2019-12-17T08:58:33-05:00\n", "bounce 2019-12-17")]
    [InlineData("Postmark's complaints", "Email Address,Suppression Reason,Origin,Created At\na@example.com,SpamComplaint,Recipient,2019-12-17T08:58:33-05:00\n", "complaint 2019-12-17")]
    [InlineData("Postmark's unsubscribes", "EmailAddress,SuppressionReason,Origin,CreatedAt\na@example.com,ManualSuppression,Recipient,2019-12-17T08:58:33-05:00\n", "unsubscribe 2019-12-17")]
    [InlineData("Postmark's, by its customer", "EmailAddress,SuppressionReason,Origin,CreatedAt\na@example.com,ManualSuppression,Customer,2019-12-17T08:58:33-05:00\n", "manual 2019-12-17")]
    [InlineData("SES's import job", "a@example.com,BOUNCE\n", "bounce 2026-11-24")]
    [InlineData("SES's import job, of complaints", "a@example.com,COMPLAINT\n", "complaint 2026-11-24")]
    [InlineData("of a spreadsheet", "Name;E-Mail;Note\r\nJane;a@example.com;by phone\r\n", "manual 2026-11-24 by phone")]
    [InlineData("with tabs", "Jane\ta@example.com\tunsubscribed\n", "unsubscribe 2026-11-24")]
    [InlineData("quoted", "\"name\",\"email\"\n\"Doe, Jane\",\"a@example.com\"\n", "manual 2026-11-24")]
    [InlineData("with a code alone", "address,code\na@example.com,550\n", "bounce 2026-11-24")]
    [InlineData("with an error alone", "address,error\na@example.com,unknown\n", "bounce 2026-11-24 unknown")]
    [InlineData("with a status alone", "email,status\na@example.com,5.1.1\n", "bounce 2026-11-24")]
    [InlineData("with a tag alone", "address,tag\na@example.com,*\n", "unsubscribe 2026-11-24")]
    [InlineData("over two lines from its first field on", "note,email\n\"first\nsecond\",a@example.com\n", "manual 2026-11-24 first\nsecond")]
    [InlineData("with milliseconds", "email,created\na@example.com,1449953655000\n", "manual 2026-11-24")]
    [InlineData("with no seconds", "email,created\na@example.com,0\n", "manual 2026-11-24")]
    [InlineData("with a date to come", "email,created_at\na@example.com,2036-01-01\n", "manual 2026-11-24")]
    [InlineData("with no date that can be read", "email,created_at\na@example.com,lately\n", "manual 2026-11-24")]
    public async Task CSV_of_other_providers_keeps_its_reason_and_its_date(string whose, string csv, string expected) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal((whose, "1/0"), (whose, await ImportAsync(app, csv)));
        Assert.Equal(["a@example.com " + expected], await ListAsync(app));
        Assert.Equal("0/1", await ImportAsync(app, csv));
    }

    [Theory]
    [InlineData("complaint")]
    [InlineData("soft-bounces")]
    public async Task A_reason_can_be_given_for_a_list_that_names_none(string reason) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0", await ImportAsync(app, "address,reason,created_at\na@example.com,,2024-03-01\nb@example.com,bounce,2024-03-01\n", "?reason=" + reason));
        Assert.Equal([$"a@example.com {reason} 2024-03-01", "b@example.com bounce 2024-03-01"], await ListAsync(app));
        Assert.Equal(400, (await PostAsync(app, "c@example.com", "?reason=spam")).Status);
        Assert.Equal(404, await app.StatusAsync("/suppressed/c@example.com"));
    }

    [Theory]
    [InlineData("bounce", "Bounce bounced BOUNCES hard-bounce HardBounce invalid invalid_email")]
    [InlineData("complaint", "Complaint complained complaints SpamComplaint spam-report spam")]
    [InlineData("unsubscribe", "unsubscribe Unsubscribed unsubscribes global_unsubscribe")]
    [InlineData("manual", "manual ManualSuppression")]
    [InlineData("soft-bounces", "soft-bounces")]
    public async Task A_reason_is_read_in_the_words_of_each_provider(string reason, string words) {
        await using var app = await ReceiverApp.StartAsync();
        string[] rows = [.. words.Split(' ').Select((word, number) => $"a{number}@example.com,{word}\n")];
        // So that a word which is not known is not taken for the reason that would be given.
        Assert.Equal($"{rows.Length}/0", await ImportAsync(app, "email,reason\n" + string.Concat(rows), "?reason=" + (reason == "manual" ? "unsubscribe" : "manual")));
        Assert.Equal(rows.Select((_, number) => $"a{number}@example.com {reason} 2026-11-24"), await ListAsync(app));
    }

    const string Page1 = """
        {
            "SuppressedDestinationSummaries": [
                {
                    "EmailAddress": "a@example.com",
                    "Reason": "BOUNCE",
                    "LastUpdateTime": 1586552585.077
                },
                {
                    "EmailAddress": "B@example.com",
                    "Reason": "COMPLAINT",
                    "LastUpdateTime": "2026-09-01T20:06:11.728000-07:00"
                }
            ],
            "NextToken": "token"
        }
        """;
    const string Page2 = """{"SuppressedDestinationSummaries":[{"EmailAddress":"c@example.com","Reason":"BOUNCE","LastUpdateTime":1586552585}]}""";
    static readonly string[] Three = ["a@example.com bounce 2020-04-10", "b@example.com complaint 2026-09-02", "c@example.com bounce 2020-04-10"];

    [Theory]
    [InlineData("one after another", Page1 + "\n" + Page2)]
    [InlineData("with nothing between", Page1 + Page2)]
    [InlineData("an array", "[" + Page1 + ",\n" + Page2 + "]\n")]
    public async Task Pages_of_list_suppressed_destinations_of_both_versions_are_read(string how, string pages) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal((how, "3/0"), (how, await ImportAsync(app, pages)));
        Assert.Equal(Three, await ListAsync(app));
    }

    [Theory]
    [InlineData("""["a@example.com","b@example.com"]""", "manual 2026-11-24")]
    [InlineData("""{"emailAddress":"a@example.com","reason":"BOUNCE"}""" + "\n" + """{"emailAddress":"b@example.com","reason":"BOUNCE"}""", "bounce 2026-11-24")]
    [InlineData("""{"SuppressedDestination":{"EmailAddress":"a@example.com","Reason":"BOUNCE","Attributes":{"MessageId":"1"}}}{"EmailAddress":"b@example.com","Reason":"BOUNCE"}""", "bounce 2026-11-24")]
    [InlineData("""{"items":[{"address":"a@example.com","tags":["*"]},{"address":"b@example.com","tags":["*"]}],"paging":{"next":"u"}}""", "unsubscribe 2026-11-24")]
    public async Task Other_JSON_is_read_by_the_same_names(string json, string expected) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0", await ImportAsync(app, json));
        Assert.Equal(["a@example.com " + expected, "b@example.com " + expected], await ListAsync(app));
    }

    [Fact]
    public async Task An_entry_of_JSON_without_an_address_is_skipped_by_its_line() {
        await using var app = await ReceiverApp.StartAsync();
        string page = Page1.Replace("a@example.com", "nobody", StringComparison.Ordinal).Replace("\"NextToken\"", "\"Other\":[{\"Reason\":\"BOUNCE\"}],\n\"NextToken\"", StringComparison.Ordinal);
        Assert.Equal("2/0 3: no address 14: no address", await ImportAsync(app, page + "\n" + Page2));
    }

    [Fact]
    public async Task Of_an_object_a_line_one_that_is_broken_loses_no_other() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0 2: no JSON 4: no address", await ImportAsync(app, """
            {"EmailAddress":"a@example.com"}
            {"EmailAddress":"x@example.com" "Reason"}
            {"EmailAddress":"b@example.com"}
            {"EmailAddress":"\ud83d@"}
            """));
    }

    [Fact]
    public async Task Of_an_object_a_line_one_that_is_cut_takes_no_other_with_it() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("3/0 2: no JSON", await ImportAsync(app, """
            {"EmailAddress":"a@example.com"}
            {"EmailAddress":"x@example.com"
            {"EmailAddress":"b@example.com"}
            {"EmailAddress":"c@example.com"}
            """));
    }

    [Theory]
    [InlineData(150)]
    [InlineData(20_000)]
    public async Task What_an_object_says_after_its_addresses_holds_for_all_of_them(int count) {
        await using var app = await ReceiverApp.StartAsync();
        string addresses = string.Join(',', Enumerable.Range(0, count).Select(number => $"\"a{number}@example.com\""));
        Assert.Equal($"{count}/0", await ImportAsync(app, $$"""{"emails":[{{addresses}}],"reason":"complaint","since":"2025-01-01"}"""));
        var (_, list) = await app.GetAsync("/suppressed?reason=complaint&limit=1");
        Assert.Equal("2025-01-01T00:00:00Z", list.GetProperty("suppressed")[0].GetProperty("since").GetString());
        Assert.Equal(JsonValueKind.Null, (await app.GetAsync("/suppressed?reason=manual")).Json.GetProperty("next").ValueKind);
        Assert.Empty((await app.GetAsync("/suppressed?reason=manual")).Json.GetProperty("suppressed").EnumerateArray());
    }

    [Theory]
    [InlineData("email,reason\nb@example.com <a@example.com>,bounce\n", "0/0 2: no address")]
    [InlineData("""{"email":"b@example.com <a@example.com>"}""", "0/0 1: no address")]
    [InlineData("""{"emails":["a@example.com","b@example.com","nobody"]}""", "2/0 1: no address")]
    public async Task What_may_be_a_name_and_what_is_no_address_among_others_is_told(string body, string expected) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(expected, await ImportAsync(app, body));
    }

    [Fact]
    public async Task A_page_that_breaks_off_is_400_with_the_line_and_what_was_added_before() {
        await using var app = await ReceiverApp.StartAsync();
        var (status, problem) = await PostAsync(app, Page1[..Page1.IndexOf("COMPLAINT", StringComparison.Ordinal)]);
        Assert.Equal(400, status);
        Assert.StartsWith("Line 10 is no JSON, and nothing after it was read. 1 were added before", problem.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal(["a@example.com bounce 2020-04-10"], await ListAsync(app));
    }

    [Fact]
    public async Task One_bad_line_of_CSV_loses_no_other() {
        await using var app = await ReceiverApp.StartAsync();
        byte[] body = [.. "email,reason\n"u8, .. "a@example.com,\"never ends\n"u8, .. "b@example.com,bounce\n"u8, .. "nobody,\"x\n"u8, .. "c@example.com,\"y\" z\n"u8,
            .. "\"d@example.com\n"u8, .. "e@example.com\"\n"u8, 0xC3, .. "@example.com,\n"u8, .. "f@example.com"u8];
        Assert.Equal("2/0 2: no address 4: no address 5: no address 6: no address 7: no address 8: not UTF-8", Told(await PostAsync(app, body)));
        Assert.Equal(["b@example.com bounce 2026-11-24", "f@example.com manual 2026-11-24"], await ListAsync(app));
    }

    [Fact]
    public async Task A_quote_that_ends_entries_later_loses_none_of_them() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0 2: no address 4: no address",
            await ImportAsync(app, "email,reason\na@example.com,\"never ends\nb@example.com,bounce\nnobody,\"\nc@example.com,\n"));
    }

    [Theory]
    [InlineData("ceo@customer.com")]
    [InlineData("ask,help@customer.com")]
    [InlineData("ceo@customer.com,550,error,now")]
    public async Task An_address_alone_in_a_line_of_what_another_mail_server_said_is_no_entry(string line) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0 2: what it says in several lines names another address", await ImportAsync(app, $"""
            address,code,error,created_at
            jane@example.com,550,"550 hi
            {line}
            no","Fri, 21 Oct 2011 11:02:55 UTC"
            joe@example.com,550,unknown,"Fri, 21 Oct 2011 11:02:55 UTC"
            """));
        Assert.Equal(["jane@example.com bounce 2011-10-21", "joe@example.com bounce 2011-10-21"],
            (await ListAsync(app)).Select(each => string.Join(' ', each.Split(' ')[..3])));
    }

    [Fact]
    public async Task What_a_list_seems_to_be_for_counts_less_than_what_is_said_of_it() {
        await using var app = await ReceiverApp.StartAsync();
        await ImportAsync(app, "email,status\njane@example.com,active\n", "?reason=unsubscribe");
        await ImportAsync(app, "email,status\njoe@example.com,active\n");
        Assert.Equal(["jane@example.com unsubscribe 2026-11-24", "joe@example.com bounce 2026-11-24"], await ListAsync(app));
    }

    [Fact]
    public async Task What_stands_before_a_slip_in_JSON_is_taken() {
        await using var app = await ReceiverApp.StartAsync();
        await PostAsync(app, Encoding.UTF8.GetBytes("""{"SuppressedDestinationSummaries":[{"EmailAddress":"jane@example.com","Reason":"BOUNCE"},]}"""));
        Assert.Equal(["jane@example.com bounce 2026-11-24"], await ListAsync(app));
    }

    [Fact]
    public async Task What_another_mail_server_said_in_several_lines_is_no_entry_and_loses_none() {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0", await ImportAsync(app, """
            address,code,error,created_at
            jane@example.com,550,"Verification failed for <bounce@example.org>
            550-Called: 192.0.2.1
            550-Sent: RCPT TO:<bounce@example.org>
            550 5.1.1 no such user <bounce@example.org>","Fri, 21 Oct 2011 11:02:55 UTC"
            joe@example.com,550,"unknown","Fri, 21 Oct 2011 11:02:55 UTC"
            """));
        Assert.Equal(["jane@example.com bounce 2011-10-21", "joe@example.com bounce 2011-10-21"],
            (await ListAsync(app)).Select(each => string.Join(' ', each.Split(' ')[..3])));
    }

    [Fact]
    public async Task Binary_rubbish_and_lines_of_ten_megabytes_end_well() {
        await using var app = await ReceiverApp.StartAsync();
        byte[] rubbish = new byte[300_000];
        new Random(1).NextBytes(rubbish);
        byte[] body = [.. rubbish, (byte)'\n', .. new byte[10 << 20], (byte)'\n', .. "ok@example.com"u8];
        var (status, json) = await PostAsync(app, body);
        Assert.Equal((200, 1), (status, json.GetProperty("added").GetInt32()));
        Assert.Equal(100, json.GetProperty("skipped").GetArrayLength());
        Assert.InRange(json.GetProperty("moreSkipped").GetInt32(), 900, 1300);

        byte[] text = [.. "[\""u8, .. Enumerable.Repeat((byte)'a', 10 << 20), .. "\"]"u8];
        Assert.Equal(400, (await PostAsync(app, text)).Status);
        Assert.Equal(400, (await PostAsync(app, new string('[', 100))).Status);
    }

    [Fact]
    public async Task What_SES_takes_gives_the_same_list_back() {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(first.Sns.Signed(FakeSns.SesBounce([.. Enumerable.Range(0, 600).Select(number => $"b{number}@example.com")])));
        await first.PostAsync(first.Sns.Signed(FakeSns.SesComplaint(["c@example.com"])));
        string list = await first.Private.GetStringAsync("/suppressed?format=ses", Cancellation);
        await using var second = await ReceiverApp.StartAsync();

        Assert.Equal("601/0", await ImportAsync(second, list));

        Assert.Equal(list, await second.Private.GetStringAsync("/suppressed?format=ses", Cancellation));
    }

    [Theory]
    [InlineData("csv")]
    [InlineData("json")]
    public async Task Our_own_list_is_imported_with_reasons_dates_and_notes(string format) {
        await using var first = await ReceiverApp.StartAsync();
        await first.PostAsync(first.Sns.Bounce("=b@example.com", at: "2026-10-01T07:00:00Z"));
        await first.Private.PutAsync("/suppressed/c@example.com", new StringContent("""{"note":"=1, or\n\"more\""}"""), Cancellation);
        await using var second = await ReceiverApp.StartAsync();

        Assert.Equal("2/0", await ImportAsync(second, await first.Private.GetStringAsync("/suppressed?format=" + format, Cancellation)));

        Assert.Equal(["=b@example.com bounce 2026-10-01", "c@example.com manual 2026-11-24 =1, or\n\"more\""], await ListAsync(second));
    }

    [Fact]
    public async Task What_was_lifted_after_its_date_stays_lifted_and_is_told() {
        await using var app = await ReceiverApp.StartAsync();
        await ImportAsync(app, "a@example.com\n");
        await app.Private.DeleteAsync("/suppressed/a@example.com", Cancellation);

        Assert.Equal("0/0 2: lifted on 2026-11-24, after the date it has here", await ImportAsync(app, "email,created\na@example.com,2026-11-24T07:59:59Z\n"));
        Assert.Equal(404, await app.StatusAsync("/suppressed/a@example.com"));
        Assert.Equal("1/0", await ImportAsync(app, "email\na@example.com\n"));
        Assert.Equal(200, await app.StatusAsync("/suppressed/a@example.com"));
    }

    [Fact]
    public async Task What_is_imported_after_a_lift_counts_even_when_the_clock_has_gone_back() {
        await using var first = await ReceiverApp.StartAsync();
        await ImportAsync(first, "a@example.com\n");
        first.Clock.Advance(TimeSpan.FromHours(1));
        await first.Private.DeleteAsync("/suppressed/a@example.com", Cancellation);
        await first.StopAsync();
        await using var app = await ReceiverApp.StartAsync(folder: first.Folder);

        Assert.Equal("1/0", await ImportAsync(app, "a@example.com\n"));
        Assert.Equal(200, await app.StatusAsync("/suppressed/a@example.com"));
    }

    [Fact]
    public async Task A_note_of_ones_own_stays_and_one_of_a_list_is_cut_to_a_thousand_characters() {
        await using var app = await ReceiverApp.StartAsync();
        await app.Private.PutAsync("/suppressed/a@example.com", new StringContent("""{"note":"asked by phone"}"""), Cancellation);
        string note = new('x', 1001);

        Assert.Equal("1/1", await ImportAsync(app, $"email,note\na@example.com,theirs\nb@example.com,{note}\n"));
        Assert.Equal(["a@example.com manual 2026-11-24 asked by phone", "b@example.com manual 2026-11-24 " + note[1..]], await ListAsync(app));
    }

    [Theory]
    [InlineData(999)]
    [InlineData(1000)]
    public async Task A_note_is_never_cut_through_an_emoji(int at) {
        await using var app = await ReceiverApp.StartAsync();
        string note = new('x', at);
        Assert.Equal("1/0", await ImportAsync(app, $"email,note\na@example.com,{note}\U0001F600\n"));
        Assert.Equal(["a@example.com manual 2026-11-24 " + note], await ListAsync(app));
    }

    [Theory]
    [InlineData("a@example.com, b@example.com\n")]
    [InlineData("a@example.com;b@example.com\n")]
    [InlineData("a@example.com\tb@example.com")]
    [InlineData("a@example.com b@example.com")]
    [InlineData("\"a@example.com\",\"B@example.com\",A@example.com\n")]
    [InlineData("\"a@example.com; b@example.com\"\n")]
    [InlineData("email\n\"a@example.com, b@example.com\"\n")]
    [InlineData("email,name,recipient\na@example.com,Jane,b@example.com\n")]
    [InlineData("""[["a@example.com"],["b@example.com"]]""")]
    [InlineData("""[["a@example.com","b@example.com"]]""")]
    [InlineData("""{"addresses":["a@example.com","b@example.com"]}""")]
    [InlineData("""{"email":"a@example.com","email":"b@example.com"}""")]
    [InlineData("""{"email":"a@example.com","emailAddress":"b@example.com"}""")]
    [InlineData("""[{"email":"a@example.com"},"b@example.com"]""")]
    [InlineData("""{"email":"a@example.com, b@example.com"}""")]
    public async Task More_than_one_address_of_an_entry_are_all_suppressed(string body) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0", await ImportAsync(app, body));
        Assert.Equal(["a@example.com manual 2026-11-24", "b@example.com manual 2026-11-24"], await ListAsync(app));
    }

    [Theory]
    [InlineData("a@example.com,complaint,b@example.com\n")]
    [InlineData("""[["a@example.com","COMPLAINT"],["b@example.com","COMPLAINT"]]""")]
    [InlineData("""{"values":[["a@example.com","COMPLAINT"],["b@example.com","COMPLAINT"]]}""")]
    [InlineData("""{"reason":"spam","emails":["a@example.com","b@example.com"]}""")]
    [InlineData("""{"emails":["a@example.com","b@example.com"],"reason":"spam"}""")]
    public async Task They_have_the_reason_of_their_entry(string body) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("2/0", await ImportAsync(app, body));
        Assert.Equal(["a@example.com complaint 2026-11-24", "b@example.com complaint 2026-11-24"], await ListAsync(app));
    }

    [Theory]
    [InlineData("a@example.com,bounce,reported by ops@example.com\n")]
    [InlineData("a@example.com,bounce,\"ops@example.com, as they say\"\n")]
    [InlineData("email,reason,note\na@example.com,bounce,ops@example.com\n")]
    [InlineData("""[["a@example.com","bounce","reported by ops@example.com"]]""")]
    [InlineData("""{"email":"a@example.com","reason":"bounce","cc":["ops@example.com"],"by":"ops@example.com"}""")]
    public async Task Whoever_a_note_names_is_not_suppressed(string body) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal("1/0", await ImportAsync(app, body));
        Assert.Equal(200, await app.StatusAsync("/suppressed/a@example.com"));
        Assert.Equal(404, await app.StatusAsync("/suppressed/ops@example.com"));
    }

    [Theory]
    [InlineData("b@example.com\na@example.com,bounce,reported by <ops@example.com>\n", "1/0 2: more than one address, and some with a name")]
    [InlineData("b@example.com\nJane <a@example.com>, Ops <ops@example.com>\n", "1/0 2: more than one address, and some with a name")]
    [InlineData("b@example.com,bounce\nb@example.com,o@@example.com\n", "1/1 2: no address")]
    [InlineData("""["b@example.com",["c@@example.com"],null,{"x":{"y":"z"}},{}]""", "1/0 1: no address 1: no address 1: no address")]
    [InlineData("""{"people":["a@example.com"]}""" + "\n" + """{"email":"b@example.com"}""", "1/0 1: no address")]
    [InlineData("""{"data":{"list":["a@example.com"]}}""" + "\n" + """[["b@example.com"]]""", "1/0 1: no address")]
    [InlineData("""{"email":"b@example.com","address":"a@@example.com"}""", "1/0 1: no address")]
    [InlineData("""{"email":"b@example.com"} "ops@@example.com" """, "1/0 1: no address")]
    public async Task What_cannot_be_taken_is_told(string body, string expected) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(expected, await ImportAsync(app, body));
        Assert.Equal(200, await app.StatusAsync("/suppressed/b@example.com"));
        foreach (string address in (string[])["a@example.com", "ops@example.com"]) Assert.Equal(404, await app.StatusAsync("/suppressed/" + address));
    }

    [Theory]
    [InlineData("[[", "]]")]
    [InlineData("""{"reason":"spam","emails":[""", "]}")]
    public async Task However_many_an_entry_names_none_is_lost(string before, string after) {
        await using var app = await ReceiverApp.StartAsync();
        string list = string.Join(',', Enumerable.Range(0, 1234).Select(number => $"\"a{number}@example.com\""));
        Assert.Equal("1234/0", await ImportAsync(app, before + list + after));
    }

    [Theory]
    [InlineData("?resaon=complaint", "'resaon' is no parameter here")]
    [InlineData("?reason=bounce&reason=complaint", "reason is given twice.")]
    public async Task A_parameter_that_cannot_be_right_is_400_and_nothing_is_added(string query, string why) {
        await using var app = await ReceiverApp.StartAsync();
        var (status, problem) = await PostAsync(app, "a@example.com", query);
        Assert.Equal(400, status);
        Assert.StartsWith(why, problem.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Empty(await ListAsync(app));
    }

    [Fact]
    public async Task A_stronger_reason_stays_and_a_weaker_one_is_replaced() {
        await using var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("a@example.com"));
        string before = (await app.GetAsync("/suppressed/a@example.com")).Json.GetRawText();

        Assert.Equal("0/1", await ImportAsync(app, "a@example.com,unsubscribe\n"));
        Assert.Equal(before, (await app.GetAsync("/suppressed/a@example.com")).Json.GetRawText());
        Assert.Equal("0/2", await ImportAsync(app, "a@example.com,complaint\na@example.com,complaint\n"));
        Assert.Equal("complaint", (await app.GetAsync("/suppressed/a@example.com")).Json.GetProperty("reason").GetString());
    }

    [Fact]
    public async Task It_outlives_a_restart_and_what_was_there_is_not_written_again() {
        await using var app = await ReceiverApp.StartAsync();
        string list = string.Concat(Enumerable.Range(0, 1000).Select(number => $"a{number}@example.com,BOUNCE\n"));
        Assert.Equal("1000/0", await ImportAsync(app, list));
        long length = new FileInfo(Lines.SegmentIn(app.Folder)).Length;
        Assert.Equal("0/1000", await ImportAsync(app, list));
        Assert.Equal(length, new FileInfo(Lines.SegmentIn(app.Folder)).Length);
        await app.StopAsync();

        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(1000, (await ListAsync(again)).Length);
    }

    [Fact]
    public async Task When_the_journal_fails_half_way_it_is_503_with_what_was_added_and_may_be_repeated() {
        var disk = new WatchedDisk();
        int written = 0;
        disk.OnWrite = (file, lines, offset) => {
            if ((written += lines.Count) > 600) throw new IOException("No space left on device", 28);
            RandomAccess.Write(file, lines, offset);
        };
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        string list = string.Concat(Enumerable.Range(0, 1000).Select(number => $"a{number}@example.com\n"));

        var (status, problem) = await PostAsync(app, list);

        Assert.Equal(503, status);
        int added = int.Parse(problem.GetProperty("detail").GetString()!.Split("just now. ")[1].Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(added, (await ListAsync(app)).Length);
        Assert.InRange(added, 256, 600);
        disk.OnWrite = RandomAccess.Write;
        Assert.Equal($"{1000 - added}/{added}", await ImportAsync(app, list));
    }

    [Fact]
    public async Task An_import_leaves_room_in_the_journal_for_messages() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        var most = new List<int>();
        disk.OnWrite = (SafeFileHandle file, IReadOnlyList<ReadOnlyMemory<byte>> lines, long offset) => {
            most.Add(lines.Count);
            RandomAccess.Write(file, lines, offset);
        };
        Assert.Equal("20000/0", await ImportAsync(app, string.Concat(Enumerable.Range(0, 20_000).Select(number => $"a{number}@example.com\n"))));
        Assert.InRange(most.Max(), 1, 512);
    }
}
